"""`generate`: writes text with a trained model."""

import argparse
import sys
from typing import Any

from microformer.cli.showing import asked
from microformer.cli.words import add_trust, add_unknown, number, one_of
from microformer.errors import MicroformerError, SettingsError


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder [the latest]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    verb.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="the beginning; may be given several times; --prompt=-x where it begins with a dash [asked]",
    )
    verb.add_argument(
        "--temperature", type=number("--temperature", float), metavar="X",
        help="0 takes the likeliest [asked, else 0.8]",
    )  # fmt: skip
    for flag, kind, default, metavar, about in (
        ("--top-k", int, 0, "N", "only the N likeliest; 0 for all"),
        ("--top-p", float, 1.0, "X", "only the likeliest that together reach X"),
        ("--min-p", float, 0.0, "X", "only what has X of the likeliest's probability"),
        ("--max-new-tokens", int, 500, "N", "how much is written"),
        ("--num-samples", int, 1, "N", "texts a prompt"),
        ("--seed", int, 0, "N", "the same one gives the same text"),
    ):
        verb.add_argument(flag, type=number(flag, kind), default=default, metavar=metavar, help=f"{about} [{default}]")
    verb.add_argument("--stop", default="", metavar="TEXT", help="end a text before this comes")
    verb.add_argument(
        "--precision", type=one_of("--precision", "float32", "bfloat16"), default="float32", metavar="WHAT",
        help="float32 or bfloat16, which is faster for large models and many texts [float32]",
    )  # fmt: skip
    verb.add_argument(
        "--compile", action="store_true", help="compile first (some seconds, needs a C++ compiler): for long texts"
    )
    add_trust(verb)
    add_unknown(verb)


def act(args: argparse.Namespace) -> int:
    from microformer import runs

    run = runs.find(args.run, checkpoint=args.checkpoint, trust_code=args.trust_code)
    for flag, count in (("--max-new-tokens", args.max_new_tokens), ("--num-samples", args.num_samples)):
        if count < 1:
            raise SettingsError(f"{flag} {count} can't be: it is 1 or more.", "leave it out for the usual number.")
    if args.prompt:
        _write(run, args, args.prompt, 0.8 if args.temperature is None else args.temperature)
        return 0
    asking = "" if args.temperature is not None else " and temperature"
    print(f"{run.name}: give a seed string{asking}; an empty line ends.", file=sys.stderr)
    while prompt := asked("seed string: "):
        temperature = args.temperature
        try:
            if temperature is None:
                temperature = number("the temperature", float)(asked("temperature [0.8]: ") or "0.8")
            _write(run, args, [prompt], temperature)
        except MicroformerError as error:
            if not sys.stdin.isatty():
                raise
            print(f"error: {error.sentence}\nhint: {error.hint}", file=sys.stderr)  # and asks again
    return 0


def _write(run: Any, args: argparse.Namespace, prompts: list[str], temperature: float) -> None:
    """Prints the texts: one as it is made, several one after the other."""
    from microformer import generation, pipeline

    sampler = generation.Sampler(temperature, args.top_k, args.top_p, args.min_p)
    pipeline.check_memory(run, len(prompts) * args.num_samples)  # before as many strings are made
    texts = [prompt for prompt in prompts for _ in range(args.num_samples)]
    options = {"seed": args.seed, "unknown": args.unknown, "stop": args.stop, "compile": args.compile}
    pieces = pipeline.stream_text(run, texts, sampler, args.max_new_tokens, precision=args.precision, **options)
    if len(texts) == 1:
        first = next(pieces, (0, ""))  # before anything is printed: a prompt that can't be used is an error alone
        print(pipeline.as_read(run, texts[0], args.unknown) + first[1], end="", flush=True)
        for _, piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)
        return
    written = [pipeline.as_read(run, text, args.unknown) for text in texts]
    for row, piece in pieces:
        written[row] += piece
    for place, text in enumerate(written, 1):
        print(f"--- {place} of {len(written)}\n{text}", flush=True)

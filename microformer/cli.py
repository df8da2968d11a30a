"""The `microformer` command: a thin table of verbs. Reads the command line and prints; every verb's work is elsewhere.

Torch is imported inside the verbs that need it, so that `--help`, `runs` and a mistyped flag answer at once.
"""

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from microformer import devices, templates
from microformer.errors import BROKEN, INTERRUPTED, MicroformerError, SettingsError, nearest, notice
from microformer.settings import GROUPS, convert

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code: 0, 1 after a check that found something, 2 for what the user can
    mend, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    devices.share_cores()
    _speak_utf8()
    try:
        try:
            return _run([word for word in argv if word != "--debug"])
        finally:
            sys.stdout.flush()  # here, where a closed pipe is understood, and not when Python ends
    except MicroformerError as error:
        if debug:
            raise
        print(f"error: {error.sentence}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as missing:
        if debug or missing.name is None or missing.name.partition(".")[0] == "microformer":
            raise
        print(f"error: the package {missing.name!r} is missing.\nhint: pip install -e .", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _drop_output()  # whoever read has seen enough
        return 0
    except OSError as error:
        # Files say their names, and ours are explained where they are written: what is left is standard output.
        if debug or error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _drop_output()
        print(f"error: can't write the output: {error.strerror}.\nhint: send it elsewhere.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def _drop_output() -> None:
    """What is still buffered, and what comes, goes nowhere; it must not raise again when Python closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _GoesOn(io.TextIOBase):
    """Standard output for work that goes on when nobody reads it any more, or there is no room for it."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        return self._tried(self.stream.write, text) or len(text)

    def flush(self) -> None:
        self._tried(self.stream.flush)

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def _tried(self, what: Callable[..., Any], *words: Any) -> Any:
        try:
            return what(*words)
        except OSError as error:
            _drop_output()
            notice(f"the output can't be written any more ({error.strerror}); the training goes on without it.")
            return None


def _speak_utf8() -> None:
    """Files and pipes are UTF-8 on every system; what a terminal can't show is shown as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def _run(argv: list[str]) -> int:
    parser = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in _VERBS:
        meant = nearest(argv[0], _VERBS)
        hint = f"did you mean {meant}? " if meant else ""
        raise SettingsError(f'there is no verb "{argv[0]}".', f"{hint}`microformer --help` lists them all.")
    if not argv:
        parser.print_help()
        return 0
    parser.set_defaults(parser=parser)
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        raise _unknown(unknown[0], known.parser)
    return known.action(known)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="microformer",
        description="A transformer language model to read in an afternoon, train in minutes and take apart.",
        epilog="`microformer VERB --help` says more. --debug shows an error's traceback.",
        formatter_class=_Aligned,
    )
    parser.add_argument("--version", action="version", version=_version())
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=_Parser)
    for name, (about, add, action) in _VERBS.items():
        verb = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
        add(verb)
        verb.set_defaults(action=action, parser=verb)
    return parser


class _Aligned(argparse.HelpFormatter):
    """Leaves room for the indentation of verbs, which argparse forgets: the longest would have its words below it."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if action.nargs == argparse.PARSER:
            self._action_max_length += 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message.removeprefix('argument ')}.", f"`{self.prog} --help` says what is taken.")


def _number(flag: str, kind: type[int] | type[float]) -> Callable[[str], float | int]:
    """What turns a flag's word into a number."""

    def convert(word: str) -> float | int:
        try:
            return kind(word)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{flag} {word!r} is not {what}.", "give one, such as 1.") from None

    return convert


def _one_of(flag: str, *words: str) -> Callable[[str], str]:
    """What takes one of some words for a flag."""

    def convert(word: str) -> str:
        if word in words:
            return word
        meant = nearest(word, words)
        hint = f"did you mean {meant}? " if meant else ""
        raise SettingsError(f"{flag} {word!r} is not known.", f"{hint}There are: {', '.join(words)}.")

    return convert


def _unknown(word: str, parser: argparse.ArgumentParser) -> SettingsError:
    if not word.startswith("-"):
        return SettingsError(f"{word!r} is one word too many.", f"`{parser.prog} --help` says what is taken.")
    name = word.split("=")[0]
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    meant = nearest(name, known)
    listed = f"`{parser.prog} --help` lists them all."
    what = "setting" if parser.prog.endswith("train") else "option"
    return SettingsError(
        f'there is no {what} "{name.lstrip("-")}".', f"did you mean {meant}? {listed}" if meant else listed
    )


# ---------------------------------------------------------------------------------------------------------- settings


def _add_settings(verb: argparse.ArgumentParser, groups: Sequence[str], besides: Sequence[str] = ()) -> None:
    """A flag for each setting of some groups."""
    for group in groups:
        kind = GROUPS[group]
        shown = verb.add_argument_group(f"{group} settings", "as in config.py; these win over it")
        for field in fields(kind):
            if field.name in besides:
                continue
            flag = "--" + field.name.replace("_", "-")
            about = f"{field.metadata['about']} [{field.default}]".replace("%", "%%")
            if isinstance(field.default, bool):
                off = "--no" + flag[1:]
                shown.add_argument(flag, nargs="?", const="true", metavar="true|false", help=f"{about}; or {off}")
                shown.add_argument(off, dest=field.name, action="store_const", const="false", help=argparse.SUPPRESS)
            else:
                shown.add_argument(flag, metavar=_METAVARS.get(field.name, "X"), help=about)


_METAVARS = {
    "epochs": "X",
    "max_steps": "N",
    "max_minutes": "X",
    "seed": "N",
    "eval_every": "N",
    "checkpoint_every": "N",
}


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of settings, converted."""
    names = [field.name for kind in GROUPS.values() for field in fields(kind)]
    said = {name: getattr(args, name, None) for name in names}
    return {
        name: convert(name, value) if isinstance(value, str) else value
        for name, value in said.items()
        if value is not None
    }


# ------------------------------------------------------------------------------------------------------------- verbs


def _add_prepare(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--input", nargs="+", metavar="PATH",
        help="files, folders, patterns, addresses, hf:owner/name:split:column, or - for standard input",
    )  # fmt: skip
    verb.add_argument("--config", metavar="FILE", help="a config file or the name of a ready one [config.py]")
    _add_settings(verb, ["data"])
    verb.add_argument(
        "--vocab-size", metavar="N", help="size of a vocabulary that is learned (bpe, wordpiece, unigram)"
    )


def _prepare(args: argparse.Namespace) -> int:
    from microformer import settings

    chosen = settings.resolve(args.config, _given(args))
    if args.input and "corpus" in _given(args):
        raise SettingsError("--input and --corpus both name the text.", "give one of them.")
    from microformer import pipeline

    with _bytes_shown() as progress:
        prepared = pipeline.prepare(chosen, args.input or (), progress)
    print(prepared.summary())
    return 0


def _add_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", metavar="FILE", help="a config file, a run's run.json, or a ready one [config.py]")
    verb.add_argument("--run", metavar="NAME", help="the run's name [the corpus's and a number]")
    verb.add_argument("--resume", action="store_true", help="continue the run named, or the latest")
    verb.add_argument("--from", dest="start", metavar="RUN", help="begin with another run's model and tokenizer")
    verb.add_argument("--watch", action="store_true", help="open the page that looks inside, while it trains")
    verb.add_argument("--no-browser", action="store_true", help="with --watch: print the page's address and no more")
    _add_trust(verb)
    _add_settings(verb, list(GROUPS))


def _train(args: argparse.Namespace) -> int:
    given = _given(args)
    if args.resume and args.config:
        raise SettingsError(
            "--resume goes on with the run's own settings, and --config names others.", "leave one out."
        )
    if args.resume and args.start:
        raise SettingsError("--resume goes on with a run, and --from begins a new one.", "leave one out.")
    from microformer import settings

    if not args.resume:
        settings.resolve(args.config, given)  # a mistake is told before torch takes its second to load
    from microformer import pipeline

    with redirect_stdout(_GoesOn(sys.stdout)), pipeline.Watching(not args.no_browser) as page:
        begun = page.open if args.watch else None
        how = {"run": args.run, "resume": args.resume, "start": args.start, "trust_code": args.trust_code}
        run = pipeline.train(args.config, begun=begun, **how, **given)
        ended = run.info["ended"]
        if ended and ended["how"] == "interrupted":
            return INTERRUPTED
        page.stay()
    return 0


def _add_generate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder [the latest]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    verb.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="the beginning; may be given several times; --prompt=-x where it begins with a dash [asked]",
    )
    verb.add_argument(
        "--temperature", type=_number("--temperature", float), metavar="X",
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
        verb.add_argument(flag, type=_number(flag, kind), default=default, metavar=metavar, help=f"{about} [{default}]")
    verb.add_argument("--stop", default="", metavar="TEXT", help="end a text before this comes")
    verb.add_argument(
        "--compile", action="store_true", help="compile first (some seconds, needs a C++ compiler): for long texts"
    )
    _add_trust(verb)
    _add_unknown(verb)


def _add_trust(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--trust-code",
        action="store_true",
        help="run a run's own components, though nothing was trained with them here",
    )


def _add_unknown(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--unknown", type=_one_of("--unknown", "error", "skip", "replace"), default="error", metavar="WHAT",
        help="what becomes of characters not in the vocabulary: error, skip or replace (é: e) [error]",
    )  # fmt: skip


def _generate(args: argparse.Namespace) -> int:
    from microformer import runs

    run = runs.find(args.run, checkpoint=args.checkpoint, trust_code=args.trust_code)
    for flag, number in (("--max-new-tokens", args.max_new_tokens), ("--num-samples", args.num_samples)):
        if number < 1:
            raise SettingsError(f"{flag} {number} can't be: it is 1 or more.", "leave it out for the usual number.")
    if args.prompt:
        _write(run, args, args.prompt, 0.8 if args.temperature is None else args.temperature)
        return 0
    asking = "" if args.temperature is not None else " and temperature"
    print(f"{run.name}: give a seed string{asking}; an empty line ends.", file=sys.stderr)
    while prompt := _asked("seed string: "):
        temperature = args.temperature
        try:
            if temperature is None:
                temperature = _number("the temperature", float)(_asked("temperature [0.8]: ") or "0.8")
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
    pieces = pipeline.stream_text(run, texts, sampler, args.max_new_tokens, **options)
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
    for number, text in enumerate(written, 1):
        print(f"--- {number} of {len(written)}\n{text}", flush=True)


def _asked(question: str) -> str:
    """A line from standard input; "" at its end. The question goes to standard error, so that output is text alone."""
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.isatty():
        line = sys.stdin.readline()
    else:  # UTF-8 as in every file; a byte that is none becomes a character that no vocabulary has
        line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
        print(file=sys.stderr)
    return line.rstrip("\r\n")


def _add_eval(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder [the latest]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    verb.add_argument(
        "--split", type=_one_of("--split", "train", "val", "test"), default="val", metavar="WHICH",
        help="train, val or test, of the run's data [val]",
    )  # fmt: skip
    verb.add_argument("--text", metavar="FILE", help="score this text instead of a split")
    _add_trust(verb)
    _add_unknown(verb)
    verb.add_argument(
        "--context", type=_one_of("--context", "blocks", "sliding"), default="blocks", metavar="HOW",
        help="what is seen before a token: blocks or sliding [blocks]",
    )  # fmt: skip
    verb.add_argument(
        "--stride", type=_number("--stride", int), metavar="N",
        help="tokens by which a sliding context moves on [half of it]",
    )  # fmt: skip
    verb.add_argument("--picture", metavar="FILE", help="draw the loss by position into FILE, as .svg and .png")
    verb.add_argument(
        "--beside", action="store_true", help="what n-grams and a compressor make of the same split (seconds a MB)"
    )
    verb.add_argument("--json", action="store_true", help="as JSON")


def _eval(args: argparse.Namespace) -> int:
    from microformer import files, runs

    run = runs.find(args.run, checkpoint=args.checkpoint, trust_code=args.trust_code)
    text = files.read_text(Path(args.text)) if args.text else None
    from microformer import pipeline

    if args.beside and args.text:
        raise SettingsError("--beside is for a split, whose training part is counted.", "leave --text out.")
    how = {"context": args.context, "stride": args.stride, "unknown": args.unknown, "beside": args.beside}
    found = pipeline.evaluate(run, split=args.split, text=text, **how)
    if args.picture:
        pipeline.draw_positions(Path(args.picture), run.name, found)
    if args.json:
        print(json.dumps({"run": run.name, "checkpoint": args.checkpoint, "context": args.context, **found}))
        return 0
    print(f"{run.name}, {args.text or args.split}, {args.context} of {run.spec.max_seq_len}")
    beside, places = found.pop("beside", {}), found.pop("nats_by_position")
    classes, passages = found.pop("nats_by_class"), found.pop("surprising")
    for name, value in found.items():
        if value is not None:
            print(f"{name:24}{value:>12,}" if isinstance(value, int) else f"{name:24}{value:>12.4f}")
    for name, value in beside.items():
        print(f"{name.replace('_', ' '):24}{value:>12.4f}")
    if places:
        seen = sorted({1, *(2**n for n in range(1, 40) if 2**n < len(places)), len(places)})
        print("nats by tokens before: " + " · ".join(f"{n} {places[n - 1]:.3f}" for n in seen))
    if classes:
        print(
            "nats by kind: "
            + " · ".join(f"{kind} {one['nats']:.3f} ({one['share']:.0%})" for kind, one in classes.items())
        )
    for passage in passages[:3]:
        print(f"surprising: {passage['nats']:.2f} nats a token: {passage['before']!r} → {passage['text']!r}")
    return 0


def _add_inspect(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder, shown first [the latest]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    verb.add_argument(
        "--port", type=_number("--port", int), default=7717, metavar="N",
        help="where the page is served; the next that is free, if it is taken [7717]",
    )  # fmt: skip
    verb.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    verb.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST",
        help="a name that the page may be asked for by, such as a notebook proxy's; may be given several times",
    )  # fmt: skip
    _add_trust(verb)
    verb.add_argument("--beside-training", action="store_true", help=argparse.SUPPRESS)


def _inspect(args: argparse.Namespace) -> int:
    from microformer import pipeline

    pipeline.inspect(
        args.run,
        port=args.port,
        browser=not args.no_browser,
        hosts=args.allow_host,
        checkpoint=args.checkpoint,
        trust_code=args.trust_code,
        beside_training=args.beside_training,
    )
    return 0


def _add_runs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="as JSON")


def _runs(args: argparse.Namespace) -> int:
    from microformer import runs

    rows = []
    for run in runs.all_runs():
        try:
            info = run.info
        except MicroformerError as error:
            notice(f"{run.folder} is left out: {error.sentence}")
            continue
        ended, found = info["ended"] or {}, info.get("figures") or {}
        rows.append(
            {
                "run": run.name,
                "corpus": info["data"]["corpus"],
                "parameters": info["parameters"],
                "steps": ended.get("step"),
                "seconds": ended.get("seconds"),
                "val_loss": found.get("val_loss"),
                "bits_per_char": found.get("bits_per_char"),
                "ended": ended.get("how", "not ended"),
            }
        )
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("there is no run yet; train one: microformer train")
    else:
        _table(rows, {"seconds": ".1f", "val_loss": ".4f", "bits_per_char": ".3f", "parameters": ",", "steps": ","})
    return 0


def _add_corpora(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="as JSON")


def _corpora(args: argparse.Namespace) -> int:
    from microformer import corpora

    rows: list[dict[str, Any]] = [
        {
            "corpus": corpus.name,
            "megabytes": corpus.bytes / 1e6 if corpus.bytes else None,
            "licence": corpus.licence,
            "split": corpus.convention,
            "here": (str(stored) if args.json else "yes") if (stored := corpora.stored(corpus.name)) else "no",
            "about": corpus.about,
        }
        for corpus in corpora.every()
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _table(rows, {"megabytes": ".2f"})
    return 0


def _add_tokenize(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("text", nargs="*", metavar="TEXT", help="what to cut into tokens [standard input]")
    verb.add_argument(
        "--tokenizer", metavar="PATH", help="a folder or file with one [data/vocab.json, else the latest run's]"
    )
    verb.add_argument("--run", metavar="RUN", help="the tokenizer of this run")
    _add_unknown(verb)
    verb.add_argument("--json", action="store_true", help="as JSON")


def _tokenize(args: argparse.Namespace) -> int:
    from microformer import runs, tokenization

    if args.tokenizer and args.run:
        raise SettingsError("--tokenizer and --run both name the tokenizer.", "give one of them.")
    if args.tokenizer:
        if args.tokenizer in tokenization.KINDS:
            raise SettingsError(
                f"--tokenizer {args.tokenizer} is a kind, and a tokenizer of one is wanted.",
                f"make it first: microformer prepare --tokenizer {args.tokenizer}.",
            )
        tokenizer = tokenization.load_published(Path(args.tokenizer))
    elif args.run is None and (prepared := Path("data", "vocab.json")).is_file():
        tokenizer = tokenization.load(prepared)
    else:
        tokenizer = runs.find(args.run).tokenizer
    text = " ".join(args.text) if args.text else sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    ids = tokenizer.encode(text, args.unknown).tolist()
    pieces = [tokenizer.decode([token]) for token in ids]
    if args.json:
        rows = [{"id": token, "text": piece} for token, piece in zip(ids, pieces, strict=True)]
        print(json.dumps({"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "tokens": rows}))
        return 0
    _show_pieces(ids, pieces)
    size = len(text.encode("utf-8", "ignore"))
    each = f": {size / len(ids):.2f} bytes a token" if ids else ""
    print(f"\n{tokenizer.kind}, {tokenizer.vocab_size:,} tokens · {len(ids):,} for {len(text):,} characters{each}")
    return 0


def _show_pieces(ids: list[int], pieces: list[str]) -> None:
    """Prints each token's text, spaces and ends of lines as marks, over its id: on a terminal in colours that take
    turns."""
    from rich.text import Text

    console, drawn = _console(100)
    marks = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "←"})
    above, below = Text(), Text()
    for at, (token, piece) in enumerate(zip(ids, pieces, strict=True)):
        shown = Text(piece.translate(marks) or "∅")
        width = max(shown.cell_len, len(str(token))) + 1
        if above.cell_len + width > console.width and above:
            console.print(above, below, sep="\n", soft_wrap=True)
            above, below = Text(), Text()
        shown.stylize(("black on cyan", "black on green", "black on yellow", "black on magenta")[at % 4])
        above.append_text(shown).append(" " * (width - shown.cell_len))
        below.append(f"{token:<{width}}", style="dim")
    console.print(above, below, sep="\n", soft_wrap=True)
    print(drawn.getvalue(), end="")


def _console(width: int) -> "tuple[Console, io.StringIO]":
    """A console for standard output, as wide as the terminal, and what it draws: ours to print, for rich answers a
    closed pipe in a way of its own."""
    from rich.console import Console

    on_terminal, drawn = sys.stdout.isatty(), io.StringIO()
    return Console(file=drawn, force_terminal=on_terminal, width=None if on_terminal else width, highlight=False), drawn


def _add_tokenizers(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--input", nargs="+", metavar="PATH", help="the text: files, folders, patterns, addresses")
    verb.add_argument("--config", metavar="FILE", help="a config file or the name of a ready one [config.py]")
    verb.add_argument("--tokenizers", nargs="+", metavar="KIND:SIZE", help="which [char byte bpe:512 bpe:2048 …]")
    verb.add_argument("--train", action="store_true", help="train the model of the settings on each: bits a byte")
    verb.add_argument("--seeds", type=_number("--seeds", int), default=1, metavar="N", help="trainings of each [1]")
    verb.add_argument("--picture", metavar="FILE", help="draw it into FILE, as .svg and .png")
    verb.add_argument("--json", action="store_true", help="as JSON")
    _add_settings(verb, list(GROUPS), besides=("tokenizer", "vocab_size", "seed"))


def _tokenizers(args: argparse.Namespace) -> int:
    from microformer import settings

    chosen = settings.resolve(args.config, _given(args))
    if args.input and "corpus" in _given(args):
        raise SettingsError("--input and --corpus both name the text.", "give one of them.")
    if args.seeds < 1:
        raise SettingsError(f"--seeds {args.seeds} can't be: it is 1 or more.", "leave it out for one.")
    from microformer.experiments import tokenizers

    def tell(row: dict[str, Any]) -> None:
        if not args.json:
            print(f"{row['tokenizer']}: {row['refused'] or 'done'}", file=sys.stderr, flush=True)

    seeds = range(1, args.seeds + 1) if args.train else ()
    rows = tokenizers.compared(chosen, args.input or (), args.tokenizers or tokenizers.USUAL, seeds, tell)
    if args.picture:
        tokenizers.draw(Path(args.picture), rows)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    shown = []
    for row in rows:
        if row["refused"] is not None:
            continue
        short = {name: row[name] for name in ("tokenizer", "vocabulary", "tokens", "bytes_per_token", "seconds")}
        if args.train:
            short["parameters"] = row["parameters"]
            short["bits_per_byte"] = " ".join(f"{bits:.4f}" for bits in row["bits_per_byte"])
            short["seconds_trained"] = row["seconds_trained"]
        shown.append({name.replace("_", " "): value for name, value in short.items()})
    if shown:
        numbers = dict.fromkeys(("vocabulary", "tokens", "parameters"), ",")
        decimals = {"bytes per token": ".2f", "seconds": ".1f", "seconds trained": ",.0f", "bits per byte": ""}
        _table(shown, numbers | decimals)
    return 0


def _add_import(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "path", metavar="PATH", help="a Hugging Face folder, nanoGPT's ckpt.pt, minGPT's model.pt, or owner/name"
    )
    verb.add_argument("--run", metavar="NAME", help="the run's name [the path's and a number]")
    verb.add_argument(
        "--tokenizer", metavar="PATH", help="where it is not beside the model: a folder, a meta.pkl, or the text (.txt)"
    )
    verb.add_argument("--num-heads", type=_number("--num-heads", int), metavar="N", help="where a minGPT has no name")


def _import(args: argparse.Namespace) -> int:
    from microformer import pipeline

    run = pipeline.import_model(args.path, args.run, Path(args.tokenizer) if args.tokenizer else None, args.num_heads)
    spec, info = run.spec, run.info
    print(f"run         {run.folder}")
    print(f"from        {args.path}: {info['imported']}")
    print(f"model       {spec.num_layers} layers, {spec.embed_dim} wide, context {spec.max_seq_len}: "
          f"{info['parameters']:,} parameters")  # fmt: skip
    print(f"tokenizer   {run.tokenizer.kind}, {run.tokenizer.vocab_size:,} tokens")
    print(f"write       microformer generate {run.name}")
    print(f"fine-tune   microformer train --from {run.name} --corpus FILE")
    return 0


def _add_export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder [the latest]")
    formats = ("huggingface", "safetensors", "gguf", "onnx")
    verb.add_argument("--to", type=_one_of("--to", *formats), required=True, metavar="FORMAT", help=", ".join(formats))
    verb.add_argument("--output", metavar="PATH", help="the folder or file to write [exports/RUN…]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    _add_trust(verb)


def _export(args: argparse.Namespace) -> int:
    from microformer import pipeline, runs

    run = runs.find(args.run, checkpoint=args.checkpoint, trust_code=args.trust_code)
    path = pipeline.export(run, args.to, Path(args.output) if args.output else None)
    print(f"wrote     {path}")
    print(f"use it    {pipeline.how_to_use(run, args.to, path)}")
    return 0


def _add_new(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("slot", metavar="SLOT", help=f"what it is for: {', '.join(templates.SLOTS)}")
    verb.add_argument("file", metavar="FILE", help="the file to write, such as my_attention.py")


def _new(args: argparse.Namespace) -> int:
    from microformer import files

    path = Path(args.file)
    name = templates.class_name(path)
    text = templates.start(args.slot, name)
    if os.path.lexists(path):
        raise SettingsError(f"{path} is there already.", "choose another name, or take it away.")
    files.write_text(path, text)
    component = f"{path.as_posix()}:{name}"
    print(f"wrote     {path}")
    print(f"check it  microformer check {component}")
    print(f'use it    {args.slot.upper()} = "{component}" in config.py, or microformer train --{args.slot} {component}')
    return 0


def _add_check(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("component", metavar="FILE:CLASS", help="such as my_attention.py:MyAttention(temperature=2)")
    verb.add_argument(
        "--lengths", type=_lengths, default=(128, 512, 2048), metavar="N,N…",
        help="contexts at which its cost is measured, or none [128,512,2048]",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="as JSON")


def _lengths(word: str) -> tuple[int, ...]:
    try:
        found = () if word == "none" else tuple(int(one) for one in word.split(","))
    except ValueError:
        found = (0,)
    if not all(2 <= length <= 2**20 for length in found):
        raise SettingsError(f"--lengths {word!r} names no contexts.", "give them as 256,1024, or none.")
    return found


def _check(args: argparse.Namespace) -> int:
    from microformer import pipeline

    found = pipeline.check(args.component, args.lengths)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
        return 0 if found.kept else BROKEN
    print(f"{found.component}, for {found.slot.upper()}\n")
    _table([{"": "ok" if row.kept else "BROKEN", "contract": _short(row)} for row in found.rows], {})
    if found.models:
        print(f"\ntried in {len(found.models)} models: {'; '.join(found.models)}")
    for model, reason in found.refused:
        print(f"refused in one with {model}: {reason}")
    if found.shares:
        print(
            "\nshare of the highest rate, at each tenth of the run: " + " ".join(f"{one:.2f}" for one in found.shares)
        )
    if found.costs:
        print(f"\na training step, beside {found.beside} in its place (CPU, float32; medians, in turns):")
        costs = [_cost(cost, found.beside) for cost in found.costs]
        _table(costs, dict.fromkeys(costs[0], ""))
    broken = sum(not row.kept for row in found.rows)
    print(f"\n{broken} of {len(found.rows)} contracts broken" if broken else "\nall contracts kept")
    return BROKEN if broken else 0


_VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "prepare": ("text → token tensors in data/", _add_prepare, _prepare),
    "train": ("train a model (prepares first if needed)", _add_train, _train),
    "generate": ("write text with a trained model", _add_generate, _generate),
    "eval": ("the exact loss of a run over a split or a text", _add_eval, _eval),
    "import": ("another program's model as a run here", _add_import, _import),
    "export": ("a run's model for another program", _add_export, _export),
    "inspect": ("look inside a run's model, on a page in the browser", _add_inspect, _inspect),
    "runs": ("the runs here and their figures", _add_runs, _runs),
    "corpora": ("the corpora that have a name", _add_corpora, _corpora),
    "tokenize": ("a text's tokens and their ids", _add_tokenize, _tokenize),
    "tokenizers": ("kinds and sizes of tokenizers on one text", _add_tokenizers, _tokenizers),
    "new": ("a start for a component of your own", _add_new, _new),
    "check": ("whether a component of your own does what its slot asks", _add_check, _check),
}


def _short(row: Any) -> str:
    return row.contract if row.kept else f"{row.contract}\n{row.detail}"


def _cost(cost: dict[str, Any], beside: str) -> dict[str, str]:
    """A row of the table: of a context if there is one, milliseconds and megabytes beside the default's."""
    row = {"context": f"{cost['length']:,}"} if "length" in cost else {}
    for unit in ("ms", "MB"):
        if (own := cost.get(unit.lower())) is not None:
            other = cost[f"{unit.lower()}_default"]
            row |= {unit: f"{own:,.1f}", f"{unit}, {beside}": f"{other:,.1f}", f"{unit}, ratio": f"{own / other:.2f}"}
    return row


def _table(rows: list[dict[str, Any]], formats: dict[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="right" if name in formats else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if value is None else format(value, formats.get(name, "")) for name, value in row.items()))
    console, drawn = _console(160)
    console.print(table, markup=False)
    print(drawn.getvalue(), end="")


class _bytes_shown:
    """Shows, on a terminal, how much of a text was fetched, read and encoded."""

    def __enter__(self) -> Callable[[str, int, int], None] | None:
        if not sys.stderr.isatty():
            self.bar = None
            return None
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.bar.start()
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            assert self.bar is not None
            if stage not in tasks:
                tasks[stage] = self.bar.add_task(stage, total=total or None)
            self.bar.update(tasks[stage], completed=done, total=total or None)

        return show

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"microformer {version('microformer')}"
    except PackageNotFoundError:
        return "microformer, not installed"


if __name__ == "__main__":
    sys.exit(main())

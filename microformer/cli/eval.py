"""`eval`: the exact loss of a run over a split or a text."""

import argparse
import json
from pathlib import Path

from microformer.cli.words import add_trust, add_unknown, number, one_of
from microformer.errors import SettingsError


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder [the latest]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    verb.add_argument(
        "--split", type=one_of("--split", "train", "val", "test"), default="val", metavar="WHICH",
        help="train, val or test, of the run's data [val]",
    )  # fmt: skip
    verb.add_argument("--text", metavar="FILE", help="score this text instead of a split")
    add_trust(verb)
    add_unknown(verb)
    verb.add_argument(
        "--context", type=one_of("--context", "blocks", "sliding"), default="blocks", metavar="HOW",
        help="what is seen before a token: blocks or sliding [blocks]",
    )  # fmt: skip
    verb.add_argument(
        "--stride", type=number("--stride", int), metavar="N",
        help="tokens by which a sliding context moves on [half of it]",
    )  # fmt: skip
    verb.add_argument("--picture", metavar="FILE", help="draw the loss by position into FILE, as .svg and .png")
    verb.add_argument(
        "--beside", action="store_true", help="what n-grams and a compressor make of the same split (seconds a MB)"
    )
    verb.add_argument("--json", action="store_true", help="as JSON")


def act(args: argparse.Namespace) -> int:
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

"""`scaling`: how the loss falls with size and time on this machine."""

import argparse
import json
import re
import sys
from pathlib import Path

from microformer.cli.showing import table
from microformer.cli.words import number
from microformer.errors import SettingsError

FAMILY = "32x1,64x2,128x2,192x3,256x4"


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--sizes", default=FAMILY, metavar="LIST", help=f"EMBED_DIM x NUM_LAYERS of each, with commas [{FAMILY}]"
    )
    verb.add_argument(
        "--budget", type=duration, default="20min", metavar="TIME", help="of all of it: 90s, 20min, 2h [20min]"
    )
    verb.add_argument("--base", metavar="FILE", help="a config file or the name of a ready one [config.py]")
    verb.add_argument(
        "--seeds", type=number("--seeds", int), default=1, metavar="N", help="trainings of each size and budget [1]"
    )
    verb.add_argument("--output", metavar="FOLDER", help="where it is kept [experiments/scaling- and a hash]")
    verb.add_argument("--json", action="store_true", help="as JSON")


def duration(word: str) -> float:
    """A time in seconds, from words such as `20min`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|m|h)\s*", word)
    seconds = float(found[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[found[2]] if found else 0.0
    if not 0 < seconds <= 30 * 86400:
        raise SettingsError(f"--budget {word!r} is no time.", "write a number and its unit: 90s, 20min or 2h.")
    return seconds


def act(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise SettingsError(f"--seeds {args.seeds} can't be: it is 1 or more.", "leave it out for one.")
    from microformer import settings

    base = settings.resolve(args.base)
    from microformer import files
    from microformer.experiments.family import Measured
    from microformer.experiments.scaling import read_sizes, scale

    sizes = read_sizes(args.sizes, base)

    def tell(cell: Measured, progress: str) -> None:
        print(
            f"{progress}:  {cell.size}, {cell.seconds:,.0f} s, {cell.steps:,} steps: loss {cell.loss:.4f}",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    output = Path(args.output) if args.output else None
    try:
        found = scale(base, sizes, args.budget, args.seeds, output=output, tell=tell, base_name=args.base)
    except KeyboardInterrupt:
        print("\nwhat was trained is kept; the same command goes on.", file=sys.stderr)
        raise
    found.write(found.folder)
    if args.json:
        print(json.dumps({"folder": files.shown(found.folder), **found.to_json()}, indent=2))
        return 0
    table(found.rows(), found.formats)
    print("loss of validation, nats per token, by seconds of training\n")
    if bests := found.best_rows():
        table(bests, found.formats)
        print()
    for line in found.sentences():
        print(line)
    print(f"\nwritten   {files.shown(found.folder)}/: scaling.png, table.md, scaling.json")
    return 0

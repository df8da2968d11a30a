"""`compare`: arms × seeds, and whether a difference is one."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from microformer.cli.showing import table
from microformer.cli.words import number
from microformer.errors import BROKEN

if TYPE_CHECKING:
    from microformer.experiments.cells import Cell


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--base", metavar="FILE", help="a config file or the name of a ready one [config.py]")
    verb.add_argument(
        "--set", dest="arms", action="append", default=[], metavar='"NAME=VALUE …"',
        help="an arm: settings in which it differs from the base; repeat it for more arms",
    )  # fmt: skip
    verb.add_argument(
        "--seeds",
        type=number("--seeds", int),
        default=3,
        metavar="N",
        help="trainings of each arm, with seeds 1 to N [3]",
    )
    verb.add_argument("--steps", type=number("--steps", int), metavar="N", help="budget [the base's own]")
    verb.add_argument("--minutes", type=number("--minutes", float), metavar="X", help="budget [the base's own]")
    verb.add_argument(
        "--parallel", dest="at_once", type=number("--parallel", int), default=1, metavar="N",
        help="trainings at once, each with its share of the cores [1]",
    )  # fmt: skip
    verb.add_argument("--output", metavar="FOLDER", help="where table and picture go [experiments/ and a name]")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.set_defaults(dashed=("--set",))


def act(args: argparse.Namespace) -> int:
    from microformer.experiments import comparison
    from microformer.experiments.table import TO_THE_RIGHT, words

    how = {"base": args.base, "arms": args.arms, "seeds": args.seeds, "steps": args.steps, "minutes": args.minutes}
    _, arms, seeds = comparison.planned(**how)
    told = _Told(len(arms) * len(seeds))
    try:
        found = comparison.compare_arms(**how, parallel=args.at_once, tell=told)
    except KeyboardInterrupt:
        print(f"\n{told.done} of {told.all} are done and kept; the same command goes on.", file=sys.stderr)
        raise
    folder = Path(args.output) if args.output else comparison.EXPERIMENTS / found.name
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        rows = words(found.cells)
        print()
        failed = [(row["arm"], row["verdict"]) for row in rows if row["verdict"].startswith("failed: ")]
        short = [{**row, "verdict": "failed"} if row["verdict"].startswith("failed: ") else row for row in rows]
        table([{name: word or None for name, word in row.items()} for row in short], dict.fromkeys(TO_THE_RIGHT, ""))
        for arm, why in failed:
            print(f"\n{arm} {why}")
        for remark in found.remarks:
            print(f"\n{remark}")
    found.write(folder)
    if not args.json:
        print(f"\nin   {folder} (table.md, comparison.json, curves.svg, curves.png); the runs are in runs/")
    return 0 if any("verdict" in row for row in found.rows[1:]) else BROKEN


class _Told:
    """Says of each cell, on standard error, that it is done, and about how long the others will take."""

    def __init__(self, number: int):
        self.all, self.done, self.trained, self.began = number, 0, 0, time.monotonic()

    def __call__(self, cell: "Cell") -> None:
        self.done += 1
        self.trained += not cell.reused
        result = f"failed: {cell.failed}" if cell.failed else f"loss {cell.loss:.4f} in {cell.seconds:,.1f} s"
        if cell.reused:
            result += ", reused"
        left = ""
        if self.trained and self.done < self.all:
            left = f"; {_about((time.monotonic() - self.began) / self.trained * (self.all - self.done))} left"
        line = f"{self.done}/{self.all}  {cell.arm}, seed {cell.seed}: {result}{left}"
        print(line, file=sys.stderr, flush=True)


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"

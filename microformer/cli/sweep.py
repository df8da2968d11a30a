"""`sweep`: a search for better settings."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from microformer.cli.showing import table
from microformer.cli.words import number
from microformer.errors import SettingsError

if TYPE_CHECKING:
    from microformer.experiments.found import Sweep, Trial


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", nargs="?", default="sweep.toml", metavar="FILE", help="what to search [sweep.toml]")
    verb.add_argument("--trials", type=number("--trials", int), metavar="N", help="how many, in place of the file's")
    verb.add_argument(
        "--parallel", dest="at_once", type=number("--parallel", int), metavar="N",
        help="trainings at once, each with its share of the cores [the file's, or 1]",
    )  # fmt: skip
    verb.add_argument("--output", metavar="FOLDER", help="where it is kept [experiments/ and the file's name]")
    verb.add_argument("--json", action="store_true", help="as JSON")


def act(args: argparse.Namespace) -> int:
    for flag, value in (("--trials", args.trials), ("--parallel", args.at_once)):
        if value is not None and value < 1:
            raise SettingsError(f"{flag} {value} can't be: it is 1 or more.", "leave it out for the file's.")
    from microformer.experiments.space import read_plan

    plan = read_plan(args.file, args.trials, args.at_once)  # a mistake is told before torch takes its second to load
    from microformer import files
    from microformer.experiments.comparison import EXPERIMENTS
    from microformer.experiments.found import FORMATS
    from microformer.experiments.sweep import sweep

    output = Path(args.output) if args.output else EXPERIMENTS / plan.name
    try:
        found = sweep(plan, output=output, tell=_tell)
    except KeyboardInterrupt:
        print("\nwhat was tried is kept; the same command goes on.", file=sys.stderr)
        raise
    found.write(output)
    if args.json:
        print(json.dumps({"folder": files.shown(output), **found.to_json()}, indent=2))
        return 0
    table(found.rows(), FORMATS)
    print(f"\n{found.unit}, of validation; the lowest {min(len(found.ended), 10)} of {len(found.ended)}")
    for line in found.sentences():
        print(line)
    shown = files.shown(output)
    print(f"\nbest      {shown}/best.py: microformer train --config {shown}/best.py")
    print(f"is it?    {found.next_command}")
    print(f"pictures  {shown}/history.png, slices.png; all of it: sweep.json, table.md")
    return 0


def _tell(trial: "Trial", found: "Sweep") -> None:
    """A line a trial that has come to its end, on standard error."""
    said = trial.said or "the base"
    match trial.how:
        case "ended":
            came = f"loss {trial.loss:.4f}{', the best so far' if trial == found.best else ''}"
            came += ", was there" if trial.reused else f", {trial.wall:.0f} s"
        case "pruned":
            came = f"stopped at step {trial.steps:,}, loss {trial.loss:.4f}"
        case "refused":
            came = f"can't be: {trial.reason}"
        case _:
            came = f"failed: {trial.reason}"
    done = [one for one in found.counted if one.how != "running"]
    left = found.plan.trials - len(done)
    walls = [one.wall for one in done if one.wall and not one.reused]
    rest = ""
    if left > 0 and walls:
        seconds = sum(walls) / len(walls) * left / found.plan.parallel
        rest = f" (about {seconds / 60:.0f} min left)" if seconds > 90 else f" (about {seconds:.0f} s left)"
    print(f"{len(done)}/{found.plan.trials}  {said}: {came}{rest}", file=sys.stderr, flush=True)

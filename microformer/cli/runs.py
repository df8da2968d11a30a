"""`runs`: the runs here and their figures."""

import argparse
import json

from microformer.cli.showing import table
from microformer.errors import MicroformerError, notice


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="as JSON")


def act(args: argparse.Namespace) -> int:
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
        table(rows, {"seconds": ".1f", "val_loss": ".4f", "bits_per_char": ".3f", "parameters": ",", "steps": ","})
    return 0

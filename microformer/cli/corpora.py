"""`corpora`: the corpora that have a name."""

import argparse
import json
from typing import Any

from microformer.cli.showing import table


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="as JSON")


def act(args: argparse.Namespace) -> int:
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
        table(rows, {"megabytes": ".2f"})
    return 0

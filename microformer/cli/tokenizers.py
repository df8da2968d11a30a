"""`tokenizers`: kinds and sizes of tokenizers on one text."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from microformer.cli.showing import table
from microformer.cli.words import add_settings, given, number
from microformer.errors import SettingsError
from microformer.settings import GROUPS


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--input", nargs="+", metavar="PATH", help="the text: files, folders, patterns, addresses")
    verb.add_argument("--config", metavar="FILE", help="a config file or the name of a ready one [config.py]")
    verb.add_argument("--tokenizers", nargs="+", metavar="KIND:SIZE", help="which [char byte bpe:512 bpe:2048 …]")
    verb.add_argument("--train", action="store_true", help="train the model of the settings on each: bits a byte")
    verb.add_argument("--seeds", type=number("--seeds", int), default=1, metavar="N", help="trainings of each [1]")
    verb.add_argument("--picture", metavar="FILE", help="draw it into FILE, as .svg and .png")
    verb.add_argument("--json", action="store_true", help="as JSON")
    add_settings(verb, list(GROUPS), besides=("tokenizer", "vocab_size", "seed"))


def act(args: argparse.Namespace) -> int:
    from microformer import settings

    chosen = settings.resolve(args.config, given(args))
    if args.input and "corpus" in given(args):
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
        table(shown, numbers | decimals)
    return 0

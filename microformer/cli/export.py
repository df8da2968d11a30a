"""`export`: a run's model for another program."""

import argparse
from pathlib import Path

from microformer.cli.words import add_trust, one_of


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder [the latest]")
    formats = ("huggingface", "safetensors", "gguf", "onnx")
    verb.add_argument("--to", type=one_of("--to", *formats), required=True, metavar="FORMAT", help=", ".join(formats))
    verb.add_argument("--output", metavar="PATH", help="the folder or file to write [exports/RUN…]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    add_trust(verb)


def act(args: argparse.Namespace) -> int:
    from microformer import pipeline, runs

    run = runs.find(args.run, checkpoint=args.checkpoint, trust_code=args.trust_code)
    path = pipeline.export(run, args.to, Path(args.output) if args.output else None)
    print(f"wrote     {path}")
    print(f"use it    {pipeline.how_to_use(run, args.to, path)}")
    return 0

"""`inspect`: the page that looks inside a run's model."""

import argparse

from microformer.cli.words import add_trust, number


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", nargs="?", metavar="RUN", help="a run's name or folder, shown first [the latest]")
    verb.add_argument("--checkpoint", default="best", metavar="WHICH", help="best, last, or a snapshot's step [best]")
    verb.add_argument(
        "--port", type=number("--port", int), default=7717, metavar="N",
        help="where the page is served; the next that is free, if it is taken [7717]",
    )  # fmt: skip
    verb.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    verb.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST",
        help="a name that the page may be asked for by, such as a notebook proxy's; may be given several times",
    )  # fmt: skip
    add_trust(verb)
    verb.add_argument("--beside-training", action="store_true", help=argparse.SUPPRESS)


def act(args: argparse.Namespace) -> int:
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

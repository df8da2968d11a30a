"""`report`: runs, or a comparison, as one HTML page to show to somebody."""

import argparse
import sys

from microformer.cli.words import add_trust, number


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "run", nargs="*", metavar="RUN",
        help="runs by name, folder or pattern, or the folder of a comparison [the latest run]",
    )  # fmt: skip
    verb.add_argument("--output", default="report.html", metavar="FILE", help="the file to write [report.html]")
    verb.add_argument(
        "--prompt", metavar="TEXT", help="what its samples begin with [the beginning of a line; a task's question]"
    )
    verb.add_argument(
        "--max-new-tokens", type=number("--max-new-tokens", int), default=200, metavar="N",
        help="length of a sample; 0 for no samples [200]",
    )  # fmt: skip
    verb.add_argument(
        "--temperature", type=number("--temperature", float), default=0.8, metavar="X", help="of the samples [0.8]"
    )
    verb.add_argument("--seed", type=number("--seed", int), default=0, metavar="N", help="of the samples [0]")
    add_trust(verb)


def act(args: argparse.Namespace) -> int:
    from microformer.experiments.reporting import report

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    path = report(
        args.run,
        args.output,
        prompt=args.prompt,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        seed=args.seed,
        trust_code=args.trust_code,
        tell=tell,
    )
    print(f"wrote     {path} ({path.stat().st_size / 1e6:.1f} MB; opens in a browser, needs nothing else)")
    return 0

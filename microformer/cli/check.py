"""`check`: whether a component of the user's own does what its slot asks."""

import argparse
import json
from typing import Any

from microformer.cli.showing import table
from microformer.errors import BROKEN, SettingsError


def add(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("component", metavar="FILE:CLASS", help="such as my_attention.py:MyAttention(temperature=2)")
    verb.add_argument(
        "--lengths", type=_lengths, default=(128, 512, 2048), metavar="N,N…",
        help="contexts at which its cost is measured, or none [128,512,2048]",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="as JSON")


def _lengths(word: str) -> tuple[int, ...]:
    try:
        found = () if word == "none" else tuple(int(one) for one in word.split(","))
    except ValueError:
        found = (0,)
    if not all(2 <= length <= 2**20 for length in found):
        raise SettingsError(f"--lengths {word!r} names no contexts.", "give them as 256,1024, or none.")
    return found


def act(args: argparse.Namespace) -> int:
    from microformer import pipeline

    found = pipeline.check(args.component, args.lengths)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
        return 0 if found.kept else BROKEN
    print(f"{found.component}, for {found.slot.upper()}\n")
    table([{"": "ok" if row.kept else "BROKEN", "contract": _short(row)} for row in found.rows], {})
    if found.models:
        print(f"\ntried in {len(found.models)} models: {'; '.join(found.models)}")
    for model, reason in found.refused:
        print(f"refused in one with {model}: {reason}")
    if found.shares:
        print(
            "\nshare of the highest rate, at each tenth of the run: " + " ".join(f"{one:.2f}" for one in found.shares)
        )
    if found.costs:
        print(f"\na training step, beside {found.beside} in its place (CPU, float32; medians, in turns):")
        costs = [_cost(cost, found.beside) for cost in found.costs]
        table(costs, dict.fromkeys(costs[0], ""))
    broken = sum(not row.kept for row in found.rows)
    print(f"\n{broken} of {len(found.rows)} contracts broken" if broken else "\nall contracts kept")
    return BROKEN if broken else 0


def _short(row: Any) -> str:
    return row.contract if row.kept else f"{row.contract}\n{row.detail}"


def _cost(cost: dict[str, Any], beside: str) -> dict[str, str]:
    """A row of the table: of a context if there is one, milliseconds and megabytes beside the default's."""
    row = {"context": f"{cost['length']:,}"} if "length" in cost else {}
    for unit in ("ms", "MB"):
        if (own := cost.get(unit.lower())) is not None:
            other = cost[f"{unit.lower()}_default"]
            row |= {unit: f"{own:,.1f}", f"{unit}, {beside}": f"{other:,.1f}", f"{unit}, ratio": f"{own / other:.2f}"}
    return row

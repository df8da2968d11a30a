"""What came of a comparison, a row an arm: figures, and the words of a table. Knows cells, and nothing of how they were
trained.

Losses are in nats a token, or, where the arms' tokens are not the same, in bits a byte of the text, which can be
compared. What an arm took is the median over its seeds, memory the most.
"""

import html
import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from microformer.experiments import layout
from microformer.experiments.cells import Cell
from microformer.experiments.intervals import compare

NATS, BITS = "nats per token", "bits per byte"
TO_THE_RIGHT = ("steps", "seconds", "tokens/s", "memory", "parameters")


def unit(cells: Sequence[Cell]) -> str:
    """What the losses of these can be compared in."""
    ratios = [cell.bits_per_byte / cell.loss for cell in cells if not cell.failed and cell.loss]
    same = all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios)
    return NATS if same or any(math.isnan(ratio) for ratio in ratios) else BITS


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row an arm, in the arms' order: `arm`, `seeds`, `failed`; of one that was trained `losses` and their `mean` and
    `spread`, half the width of its 95% interval; `difference` to the first with `within`, half of its interval's
    width, `verdict` and, in words, `said`; `steps`, `tokens`, `seconds`, `tokens_per_second`, `memory` (bytes),
    `parameters`, and how many trainings were `reused`.

    An arm of which a training failed has its reason and no figures.
    """
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    of = {arm: [cell for cell in cells if cell.arm == arm] for arm in arms}
    in_bits = unit(cells) == BITS
    whole = {
        arm: [cell.bits_per_byte if in_bits else cell.loss for cell in of[arm]]
        for arm in arms
        if not any(cell.failed or cell.stopped for cell in of[arm])
    }
    found = compare(whole) if whole and arms[0] in whole else {}
    result = []
    for arm in arms:
        row: dict[str, Any] = {"arm": arm, "seeds": [cell.seed for cell in of[arm]]}
        row["failed"] = next((cell.failed for cell in of[arm] if cell.failed), None)
        if arm in whole:
            alone = found[arm] if arm in found else compare({arm: whole[arm]})[arm]
            row |= {"losses": whole[arm], "mean": alone.mean, "spread": alone.spread}
            for name in ("steps", "tokens", "seconds", "tokens_per_second"):
                row[name] = median(getattr(cell, name) for cell in of[arm])
            row["memory"] = max(cell.memory for cell in of[arm])
            row["parameters"] = of[arm][0].parameters
            row["reused"] = sum(cell.reused for cell in of[arm])
        if arm in found:
            one = found[arm]
            row |= {"difference": one.difference, "within": one.within, "verdict": one.verdict, "said": one.said}
        result.append(row)
    return result


def words(cells: Sequence[Cell], costs: bool = True) -> list[dict[str, str]]:
    """The rows as a table has them: its columns, by their names.

    Args:
        costs: whether with tokens a second, memory and parameters.
    """
    seeds = len({cell.seed for cell in cells})
    loss = f"loss, {unit(cells)}" + (f", mean of {seeds}" if seeds > 1 else "")
    shown = []
    for number, row in enumerate(rows(cells)):
        line = dict.fromkeys((loss, "difference", "verdict", "steps", "seconds"), "")
        line = {"arm": row["arm"]} | line | (dict.fromkeys(("tokens/s", "memory", "parameters"), "") if costs else {})
        if row["failed"]:
            line["verdict"] = f"failed: {row['failed']}"
        if "mean" in row:
            line[loss] = _with(f"{row['mean']:.4f}", row["spread"])
            line |= {"steps": f"{row['steps']:,.0f}", "seconds": f"{row['seconds']:,.1f}"}
            if costs:
                line |= {
                    "tokens/s": f"{row['tokens_per_second']:,.0f}",
                    "memory": _bytes(row["memory"]),
                    "parameters": f"{row['parameters']:,}",
                }
        if number and "difference" in row:
            line["difference"] = _with(f"{row['difference']:+.4f}", row["within"])
            line["verdict"] = row["said"]
        elif number and not row["failed"]:
            line["verdict"] = "the base failed"
        shown.append(line)
    return shown


def remarks(cells: Sequence[Cell]) -> list[str]:
    """What whoever reads the table should know besides, a sentence each."""
    said, trained = [], [cell for cell in cells if not cell.failed]
    arms = len(dict.fromkeys(cell.arm for cell in cells)) - 1
    if len({cell.seed for cell in cells}) > 1:
        together = f", corrected for {arms} arms" if arms > 1 else ""
        said.append(f"± is half of a 95% interval; differences are paired by seed{together}.")
    if len({cell.validated for cell in trained}) > 1:
        said.append("The arms were validated on different texts: their losses are of different things.")
    if len({(cell.device, cell.threads) for cell in trained}) > 1:
        said.append("The trainings had different devices or numbers of threads: their seconds are of different things.")
    return said


def markdown(cells: Sequence[Cell], costs: bool = True) -> str:
    """The table for a page; see `words`."""
    return layout.markdown(words(cells, costs), TO_THE_RIGHT)


def markup(cells: Sequence[Cell]) -> str:
    """The table as HTML, for a notebook or a page."""
    below = "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks(cells))
    return layout.markup(words(cells), TO_THE_RIGHT) + below


def _with(value: str, half: float | None) -> str:
    return value if half is None else f"{value} ± {half:.4f}"


def _bytes(number: int) -> str:
    if not number:
        return "–"
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"

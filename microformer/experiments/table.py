"""What came of a comparison, as Markdown, JSON and a picture. Knows cells, and nothing of how they were trained."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from microformer import files, pictures
from microformer.experiments.cells import Cell
from microformer.experiments.intervals import compare


def rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row an arm, in the arms' order: name, losses, mean, difference to the first with its interval, cost.

    An arm of which a training failed has its reason and no figures.
    """
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    of = {arm: [cell for cell in cells if cell.arm == arm] for arm in arms}
    whole = {arm: [cell.loss for cell in of[arm]] for arm in arms if not any(cell.failed for cell in of[arm])}
    found = compare(whole) if whole and arms[0] in whole else {}
    result = []
    for arm in arms:
        row: dict[str, Any] = {"arm": arm, "seeds": [cell.seed for cell in of[arm]]}
        if arm in whole:
            row["losses"] = whole[arm]
            row["mean"] = mean(whole[arm])
            row["steps"] = median(cell.steps for cell in of[arm])
            row["seconds"] = median(cell.seconds for cell in of[arm])
            row["tokens_per_second"] = median(cell.tokens / cell.seconds for cell in of[arm])
        if arm in found:
            row |= {"difference": found[arm].difference, "within": found[arm].within, "verdict": found[arm].verdict}
        row["failed"] = next((cell.failed for cell in of[arm] if cell.failed), None)
        result.append(row)
    return result


def markdown(cells: Sequence[Cell]) -> str:
    """The table for a page: losses in nats a token, differences to the first arm with their 95% intervals."""
    seeds = len({cell.seed for cell in cells})
    lines = [
        f"| | loss, mean of {seeds} | difference | | steps | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(rows(cells)):
        if row["failed"]:
            lines.append(f"| {row['arm']} | failed: {row['failed']} | | | | |")
            continue
        difference = verdict = "" if number == 0 else "–"
        if number and "difference" in row:
            within = "" if row["within"] is None else f" ± {row['within']:.4f}"
            difference, verdict = f"{row['difference']:+.4f}{within}", row["verdict"]
        lines.append(
            f"| {row['arm']} | {row['mean']:.4f} | {difference} | {verdict} "
            f"| {row['steps']:,.0f} | {row['seconds']:,.1f} |"
        )
    return "\n".join(lines) + "\n"


def write(cells: Sequence[Cell], folder: str | Path, title: str = "") -> None:
    """Writes table.md, cells.json, and curves.svg and .png (validation loss against seconds, each arm's first seed).

    Raises:
        FileError: the folder can't be written to.
    """
    folder = Path(folder)
    files.write_text(folder / "table.md", markdown(cells))
    plain = [{**asdict(cell), "run": cell.run.name} for cell in cells]
    files.write_json(folder / "cells.json", {"rows": rows(cells), "cells": plain})
    curves: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        if cell.curve and cell.arm not in curves:
            curves[cell.arm] = [(point.seconds, point.loss) for point in cell.curve]
    if curves:
        pictures.loss_curves(
            folder / "curves.svg", folder / "curves.png", curves,
            x_label="seconds", y_label="validation loss (nats per token)", title=title,
        )  # fmt: skip

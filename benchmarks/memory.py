"""What memory does: a task that can't be done without one, and text.

The task is copying (docs/corpora.md): eight symbols are to be repeated 55 characters after they came, by a model that
reads 32 at a time; the share of 2,000 examples held out that are answered without a mistake, for each of three seeds.
Guessing is right once in 518,918,400 times.

The text is the head of text8, read 64 characters at a time in the same order by all; differences are paired by seed
with their 95% intervals, corrected for the number of arms (docs/experiments.md): what the memories bring to this text
can't be told from three seeds. A gradient that goes through two segments takes samples of twice the length, so
`recurrent` has half as many in a batch. Each model has one thread on a core of its own.

Needs text8-head.txt in the folder that MICROFORMER_CORPORA names. Interrupted, it goes on where it stopped
(`benchmarks/.cells`).
"""

import os
import sys
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Memory"
TASK: dict[str, Any] = {
    "corpus": "task:copy(length=8, distance=55)", "max_seq_len": 32, "embed_dim": 64, "ff_dim": 128,
    "precision": "float32",
}  # fmt: skip
_WIDE: dict[str, Any] = {"num_layers": 3, "max_steps": 800}
# What is looked up is compared by keys that no gradient reaches: one wide head, pairs of characters, and patience.
_ONE_HEAD: dict[str, Any] = {
    "num_layers": 2, "num_heads": 1, "ngrams": 2, "learning_rate": 0.004, "max_steps": 2600,
}  # fmt: skip
TASK_ARMS: dict[str, dict[str, Any]] = {
    "3 layers: none": {**_WIDE, "data_order": "streams"},
    "3 layers: xl(32)": {**_WIDE, "memory": "xl(32)"},
    "3 layers: recurrent(8)": {**_WIDE, "memory": "recurrent(8)"},
    "2 layers, pairs: none": {**_ONE_HEAD, "data_order": "streams"},
    "2 layers, pairs: knn(32, k=16)": {**_ONE_HEAD, "memory": "knn(32, k=16)"},
}
TEXT: dict[str, Any] = {"max_seq_len": 64, "max_steps": 600, "val_fraction": 0.02}
TEXT_ARMS: dict[str, dict[str, Any]] = {
    "none": {"data_order": "streams"},
    "xl(64)": {"memory": "xl(64)"},
    "compressive(32, pooled=32, rate=4)": {"memory": "compressive(32, pooled=32, rate=4)"},
    "recurrent(8)": {"memory": "recurrent(8)", "batch_size": 16},
    "tokens(8)": {"memory": "tokens(8)", "data_order": "streams"},
    "knn(512, k=16)": {"memory": "knn(512, k=16)"},
}


def measure(options: shared.Options) -> dict[str, Any]:
    """For the task each arm's shares, parameters and seconds; for the text losses and costs."""
    seeds = [1] if options.quick else [1, 2, 3]
    return {"task": task(seeds), **text(seeds)}


_QUIET = {"threads": 1, "epochs": 0.0, "eval_every": 1_000_000, "snapshots": False}


def task(seeds: list[int]) -> list[dict[str, Any]]:
    """A row an arm and seed."""
    from microformer import experiments
    from microformer.runs import Run
    from microformer.settings import Settings

    base, rows = Settings().changed({**_QUIET, **TASK}), []
    for cell in experiments.train_all(base, _arms(TASK_ARMS), seeds, _folder("task"), tell=shared.tell):
        info = Run(cell.run).info
        exact, steps = info["figures"]["exact_match"], cell.steps
        rows.append(
            {"arm": cell.arm, "exact": exact, "parameters": info["parameters"], "steps": steps, "seconds": cell.seconds}
        )
    return rows


def text(seeds: list[int]) -> dict[str, Any]:
    """Losses and costs by arm."""
    from microformer import experiments
    from microformer.settings import Settings

    text8 = Path(os.environ["MICROFORMER_CORPORA"]) / "text8-head.txt"
    base = Settings().changed({**_QUIET, **TEXT, "corpus": str(text8)})
    cells = experiments.train_all(base, _arms(TEXT_ARMS), seeds, _folder("text"), tell=shared.tell)
    return shared.of_arms(cells)


def _arms(changes: dict[str, dict[str, Any]]) -> list[Any]:
    from microformer import experiments

    return [experiments.Arm(name, change) for name, change in changes.items()]


def _folder(name: str) -> Path:
    folder = shared.CLONE / "benchmarks" / ".cells" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    rows = ["| memory | parameters | exact match, by seed | steps | seconds |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(one["arm"] for one in found["task"]):
        cells = [one for one in found["task"] if one["arm"] == name]
        exact = " · ".join(f"{one['exact']:.1%}" for one in cells)
        seconds = sum(one["seconds"] for one in cells) / len(cells)
        rows.append(f"| {name} | {cells[0]['parameters']:,} | {exact} | {cells[0]['steps']:,} | {seconds:.0f} |")
    return "\n".join(
        ["Copying:", "", *rows, "", f"text8's head, after {TEXT['max_steps']:,} steps:", "", shared.table(found)]
    )


def draw(found: dict[str, Any], folder: Path) -> str:
    """The shares of the task as bars, a dot a seed."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one["arm"] for one in found["task"]))
    of = {name: [100 * one["exact"] for one in found["task"] if one["arm"] == name] for name in names}
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    heights = [sum(of[name]) / len(of[name]) for name in names]
    axes.bar(range(len(names)), heights, width=0.55, color="#7aa6d6")
    axes.set_xticks(range(len(names)), [name.replace(": ", "\n") for name in names])
    for place, name in enumerate(names):
        axes.plot([place] * len(of[name]), of[name], "o", color="#1f4e79", markersize=5, clip_on=False)
    axes.set_ylabel("examples without a mistake (%)")
    axes.set_ylim(0, 105)
    axes.set_title("Copying 55 characters back, with a context of 32")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "memory.png", dpi=150)
    figure.savefig(folder / "memory.svg")
    return "memory.png"


if __name__ == "__main__":
    shared.main(sys.modules[__name__])

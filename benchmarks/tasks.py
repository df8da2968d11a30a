"""What small models make of tasks whose answers are known (docs/corpora.md), for three seeds each.

Exact match is the share of the examples held out that are answered without a mistake. Of the Markov chain it is the
loss that counts, beside the chain's entropy, which no model can go below but by luck; of induction the loss on the
repeat, with two layers and with one. Each training has one thread; interrupted, it goes on where it stopped
(`benchmarks/.cells`).
"""

import sys
from typing import Any

import measure as shared

TITLE = "Tasks"
_BASE: dict[str, Any] = {
    "embed_dim": 64, "ff_dim": 128, "num_layers": 3, "precision": "float32", "threads": 1, "epochs": 0.0,
    "max_steps": 1500, "eval_every": 1_000_000, "snapshots": False,
}  # fmt: skip
# A context is a whole number of examples, so that samples begin where examples do.
ARMS: dict[str, dict[str, Any]] = {
    "addition": {"corpus": "task:addition", "max_seq_len": 40, "max_steps": 2500},
    "addition, ones first": {"corpus": "task:addition(reverse=1)", "max_seq_len": 40, "max_steps": 2500},
    "sorting": {"corpus": "task:sorting", "max_seq_len": 56},
    "reversal": {"corpus": "task:reversal", "max_seq_len": 54},
    "copy": {"corpus": "task:copy(length=8, distance=23)", "max_seq_len": 32},
    "induction, two layers": {"corpus": "task:induction", "max_seq_len": 32, "num_layers": 2},
    "induction, one layer": {"corpus": "task:induction", "max_seq_len": 32, "num_layers": 1},
    "brackets": {"corpus": "task:brackets", "max_seq_len": 57},
    "modular": {"corpus": "task:modular", "max_seq_len": 36, "max_steps": 4000},
    "markov": {"corpus": "task:markov", "max_seq_len": 64, "num_layers": 1, "max_steps": 1000},
}


def measure(options: shared.Options) -> list[dict[str, Any]]:
    """A row an arm and seed."""
    from microformer import experiments
    from microformer.runs import Run
    from microformer.settings import Settings

    folder = shared.CLONE / "benchmarks" / ".cells" / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    arms, rows = [experiments.Arm(name, changes) for name, changes in ARMS.items()], []
    for cell in experiments.train_all(
        Settings().changed(_BASE), arms, [1] if options.quick else [1, 2, 3], folder, tell=shared.tell
    ):
        info = Run(cell.run).info
        figures = info["figures"]
        rows.append(
            {
                "arm": cell.arm,
                "exact": figures["exact_match"],
                "loss": cell.loss,
                "entropy": figures.get("the task's entropy", 0.0),
                "held_out": info["data"]["val"]["characters"] // _example(ARMS[cell.arm]["corpus"]),
                "parameters": info["parameters"],
                "steps": cell.steps,
                "seconds": cell.seconds,
            }
        )
    return rows


def _example(corpus: str) -> int:
    from microformer.corpora import tasks

    task = tasks.find(corpus)
    assert task is not None
    return task.example


def page(found: list[dict[str, Any]]) -> str:
    """The section of BENCHMARKS.md."""
    rows = [
        "| task | exact match, by seed | of | loss on the answers, by seed | least possible | parameters | steps | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(one["arm"] for one in found):
        cells = [one for one in found if one["arm"] == name]
        exact = "" if cells[0]["entropy"] else " · ".join(f"{one['exact']:.1%}" for one in cells)
        losses = " · ".join(f"{one['loss']:.4f}" for one in cells)
        seconds = sum(one["seconds"] for one in cells) / len(cells)
        rows.append(
            f"| {name} | {exact} | {cells[0]['held_out']:,} | {losses} | {cells[0]['entropy']:.4f} | "
            f"{cells[0]['parameters']:,} | {cells[0]['steps']:,} | {seconds:.0f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])

"""What each ingredient of the recipe `shakespeare_char` is worth: its loss after as many steps with all of them, and
without each, three seeds, differences paired by seed with their 95% intervals, corrected for the number of arms
(docs/experiments.md says how). The same steps, not the same seconds: what is slower has its seconds beside it.

A regulariser's worth (leaving n-grams out) shows in longer trainings than this. Where bfloat16 is faster it is the
precision of all arms but one, which tells what it costs.

Trained on the training text alone, its last tenth held out to judge by: the validation split has no part in this.
Interrupted, it goes on where it stopped (`benchmarks/.cells`).
"""

import sys
from typing import Any

import measure as shared

TITLE = "What each ingredient is worth"
STEPS = 400
WITHOUT: dict[str, dict[str, Any]] = {
    "all": {},
    "embeddings of n-grams": {"ngrams": 1, "ngram_dropout": 0.0},
    "leaving n-grams out in training": {"ngram_dropout": 0.0},
    "Muon (AdamW)": {"optimizer": "adamw"},
    "QK-norm": {"qk_norm": False},
    "RoPE (learned positions)": {"positions": "learned"},
    "RMSNorm (LayerNorm)": {"norm": "layernorm"},
    "SwiGLU (GELU)": {"feedforward": "gelu"},
    "the long context (half of it, twice the batch)": {"max_seq_len": 128, "batch_size": 32},
    "bfloat16 (float32)": {"precision": "float32"},
}


def measure(options: shared.Options) -> dict[str, Any]:
    """Losses and costs by arm."""
    from microformer import experiments, settings

    folder = shared.CLONE / "benchmarks" / ".cells"
    corpus = str(shared.training_text(folder))
    often = {"eval_every": 1_000_000, "snapshots": False, "epochs": 0.0, "max_minutes": 0.0, "max_steps": STEPS}
    base = settings.resolve("shakespeare_char").changed({**often, "corpus": corpus})
    arms = [experiments.Arm(name if not change else f"without {name}", change) for name, change in WITHOUT.items()]
    cells = experiments.train_all(base, arms, [1] if options.quick else [1, 2, 3], folder, tell=shared.tell)
    return shared.of_arms(cells)


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    return shared.table(found)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])

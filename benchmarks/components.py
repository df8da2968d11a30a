"""What each attention, position, norm and feed-forward does to the loss: the default model with one component changed
at a time, after 400 steps and after 40 seconds, three seeds, differences paired by seed with their 95% intervals,
corrected for the number of arms (docs/experiments.md says how): beside so many others only a large difference can be
told from three seeds. One thread, kept on a core of its own (`taskset -c 1`); the other core was at work.

The seconds count what a component costs, the steps don't. Feed-forwards of two matrices have an FF_DIM of 384, so that
all have as many parameters. The arguments of sparse kinds were chosen for a context of 128 and not tuned; nor was the
rate, which is the default's for all. Differences of this little training need not be those of a long one.

Interrupted, it goes on where it stopped (`benchmarks/.cells`).
"""

import sys
from typing import Any

import measure as shared

TITLE = "Components"
BUDGETS: dict[str, dict[str, Any]] = {"400 steps": {"max_steps": 400}, "40 seconds": {"max_minutes": 40 / 60}}
_TWO_MATRICES = {"ff_dim": 384}
CHANGES: dict[str, dict[str, Any]] = {
    "the default: softmax, rope, rmsnorm before, swiglu": {},
    "window(32)": {"attention": "window(32)"},
    "strided(16)": {"attention": "strided(16)"},
    "fixed(16, columns=4)": {"attention": "fixed(16, columns=4)"},
    "sparsemax": {"attention": "sparsemax"},
    "entmax15": {"attention": "entmax15"},
    "topk(16)": {"attention": "topk(16)"},
    "sigmoid": {"attention": "sigmoid"},
    "linear": {"attention": "linear"},
    "differential": {"attention": "differential"},
    "learned positions": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "alibi": {"positions": "alibi"},
    "t5": {"positions": "t5"},
    "no positions": {"positions": "none"},
    "layernorm": {"norm": "layernorm"},
    "norm after": {"norm_placement": "post"},
    "sandwich": {"norm_placement": "sandwich"},
    "geglu": {"feedforward": "geglu"},
    "gelu": {"feedforward": "gelu", **_TWO_MATRICES},
    "gelu_tanh": {"feedforward": "gelu_tanh", **_TWO_MATRICES},
    "relu": {"feedforward": "relu", **_TWO_MATRICES},
    "relu2": {"feedforward": "relu2", **_TWO_MATRICES},
}


def measure(options: shared.Options) -> dict[str, Any]:
    """Losses and costs by arm, for each budget."""
    from microformer import experiments
    from microformer.settings import Settings

    folder = shared.CLONE / "benchmarks" / ".cells"
    folder.mkdir(exist_ok=True)
    quiet = {"corpus": "tinyshakespeare", "threads": 1, "eval_every": 1_000_000, "snapshots": False, "epochs": 0.0}
    arms = [experiments.Arm(name, change) for name, change in CHANGES.items()]
    found: dict[str, Any] = {}
    for budget, setting in BUDGETS.items():
        base = Settings().changed({**quiet, **setting})
        cells = experiments.train_all(base, arms, [1] if options.quick else [1, 2, 3], folder, tell=shared.tell)
        found[budget] = shared.of_arms(cells)
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    return "\n".join(f"After {budget}:\n\n{shared.table(one)}" for budget, one in found.items())


if __name__ == "__main__":
    shared.main(sys.modules[__name__])

"""How many n-grams the recipes for Tiny Shakespeare leave out in training (`NGRAM_DROPOUT`): their loss after as many
steps as they make in their time, for other shares than their own, without n-grams, and with another depth. Three
seeds, differences paired by seed with their 95% intervals, corrected for the number of arms (docs/experiments.md says
how). The other depth has as many steps as take the same time.

Trained on the training text alone, its last tenth held out to judge by: the validation split has no part in this.
Interrupted, it goes on where it stopped (`benchmarks/.cells`).
"""

import sys
from typing import Any

import measure as shared

TITLE = "How much to leave out"
# By recipe its steps and what is changed, itself first.
RECIPES: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {
    "shakespeare_char": (
        1000,
        {
            "0.4 (the recipe)": {},
            "0": {"ngram_dropout": 0.0},
            "0.2": {"ngram_dropout": 0.2},
            "0.6": {"ngram_dropout": 0.6},
            "without n-grams": {"ngrams": 1, "ngram_dropout": 0.0},
        },
    ),
    "shakespeare_3min": (
        1700,
        {
            "0.5 (the recipe)": {},
            "0.3": {"ngram_dropout": 0.3},
            "0.7": {"ngram_dropout": 0.7},
            "two layers": {"num_layers": 2, "max_steps": 2300},
        },
    ),
}


def measure(options: shared.Options) -> dict[str, Any]:
    """Losses and costs by arm, for each recipe."""
    from microformer import experiments, settings

    folder = shared.CLONE / "benchmarks" / ".cells"
    often = {"eval_every": 1_000_000, "snapshots": False, "epochs": 0.0, "max_minutes": 0.0}
    found: dict[str, Any] = {}
    corpus = str(shared.training_text(folder))
    for recipe, (steps, changes) in RECIPES.items():
        base = settings.resolve(recipe).changed({**often, "corpus": corpus, "max_steps": steps})
        arms = [experiments.Arm(name, change) for name, change in changes.items()]
        cells = experiments.train_all(base, arms, [1] if options.quick else [1, 2, 3], folder, tell=shared.tell)
        found[recipe] = shared.of_arms(cells)
    return found


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    return "\n".join(f"{recipe}:\n\n{shared.table(one)}" for recipe, one in found.items())


if __name__ == "__main__":
    shared.main(sys.modules[__name__])

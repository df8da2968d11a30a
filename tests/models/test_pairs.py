"""Every two choices that the settings accept together keep the contracts together."""

from functools import cache
from itertools import combinations

import pytest

from microformer import contracts
from microformer.errors import SettingsError
from microformer.models.grammar import one, per_layer
from microformer.models.spec import ATTENTION as WORDS
from microformer.models.spec import (
    FEEDFORWARD,
    INIT,
    MEMORY,
    NORM,
    NORM_PLACEMENT,
    POSITIONS,
    LayerSpec,
    ModelSpec,
)

# A word alone where it does in a context of 8 what it is for, else with arguments.
ATTENTION = {**{word: word for word in WORDS}, "topk": "topk(3)", "window": "window(3, sinks=1)"}
ATTENTION |= {"strided": "strided(3)", "fixed": "fixed(3, 1)"}
CHOICES = {
    "attention": list(ATTENTION.values()),
    "positions": sorted(POSITIONS, key="rope".__ne__),  # rope first: it goes with everything
    "feedforward": list(FEEDFORWARD),
    "norm_placement": NORM_PLACEMENT,
    "norm": list(NORM),
    "num_kv_heads": (0, 2),
    "score_cap": (0.0, 2.0),
    "attention_dropout": (0.0, 0.2),
    "output_gate": (False, True),
    "qk_norm": (False, True),
    "residual_scalars": (False, True),
    "parallel": (False, True),
    "loops": (1, 2),
    "memory": ("none", "xl(5)", "compressive(3, 4, 2)", "recurrent(2)", "tokens(2)", "knn(12, 3)"),
    "embed_scale": (1.0, 4.0),
    "init": INIT,
    "tie_embeddings": (False, True),
    "bias": (False, True),
    "dropout": (0.0, 0.2),
    "ngrams": (1, 3),
}


@cache
def spec(**chosen) -> ModelSpec | None:
    """The small model of these choices, the others at their first; None where the settings refuse them."""
    values = {name: options[0] for name, options in CHOICES.items()} | chosen
    slots = [values.pop(name) for name in ("attention", "positions", "feedforward", "norm", "memory")]
    try:
        parts = zip(
            per_layer(slots[0], WORDS, "ATTENTION", 2), per_layer(slots[2], FEEDFORWARD, "FEEDFORWARD", 2), strict=True
        )
        return ModelSpec(
            vocab_size=11, embed_dim=16, num_heads=4, ff_dim=24, max_seq_len=8, ngram_entries=50,
            layers=tuple(LayerSpec(*pair) for pair in parts),
            positions=one(slots[1], POSITIONS, "POSITIONS"), norm=one(slots[3], NORM, "NORM"),
            memory=one(slots[4], MEMORY, "MEMORY"), **values,
        )  # fmt: skip
    except SettingsError:
        return None


Choice = tuple[str, object]


def accepted_pairs() -> set[tuple[Choice, Choice]]:
    pairs = (
        ((one_name, one_value), (other_name, other_value))
        for one_name, other_name in combinations(CHOICES, 2)
        for one_value in CHOICES[one_name]
        for other_value in CHOICES[other_name]
    )
    return {pair for pair in pairs if spec(**dict(pair)) is not None}


def covering() -> list[dict[str, object]]:
    """A few dozen models in which each accepted pair occurs: each begins with a pair that is missing, and takes of
    every other slot the choice with which the most missing ones come in."""
    left, rows = accepted_pairs(), []
    in_order = sorted(left, key=str)
    while left:
        row = dict(next(pair for pair in in_order if pair in left))
        for name in CHOICES:
            if name not in row:
                fits = [value for value in CHOICES[name] if spec(**row, **{name: value}) is not None]
                row[name] = max(fits, key=lambda value, name=name: len(pairs_of({**row, name: value}) & left))
        rows.append(row)
        left -= pairs_of(row)
    return rows


def pairs_of(row: dict[str, object]) -> set[tuple[Choice, Choice]]:
    return set(combinations([(name, row[name]) for name in CHOICES if name in row], 2))


ROWS = covering()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(str(one) for one in row.values()))
def test_choices_keep_every_contract_together(row):
    chosen = spec(**row)
    assert chosen is not None
    broken = [f"{verdict.contract} {verdict.detail}" for verdict in contracts.check(chosen) if not verdict.kept]

    assert not broken, "\n".join(broken)


def test_every_pair_that_the_settings_accept_is_among_them():
    tried = set().union(*(pairs_of(row) for row in ROWS))

    assert tried == accepted_pairs()
    assert len(tried) > 1000

"""Optimizers: which rule moves which parameter, by the role that the parameter declares.

Under `muon` the matrices move by Muon and the rest by AdamW; under `adamw` all do; under a rule of the user's own, what
it is for. The rates carry over widths: a Muon
step is scaled by the matrix's shape, and where AdamW moves what is summed over the width, its rate falls with it
(Yang et al. 2022, "Tensor Programs V"). Knows parameters and rates; no schedules, no files.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from microformer.models.grammar import Own
from microformer.models.model import Microformer
from microformer.training.adamw import AdamW
from microformer.training.muon import Muon
from microformer.training.rule import Rule

# The rates that the "auto" rate stands for, and the width they were found at: the default model on Tiny Shakespeare,
# the best of a handful around them after 1,600 steps (docs/training.md has the table).
_MUON_RATE = 0.03
_ADAMW_RATE = 0.004
_WIDTH = 128
# What AdamW's rates are of Muon's: for embeddings, gains and biases, and for the unembedding.
_TABLES_SHARE = 1.0
_UNEMBEDDING_SHARE = 1 / 3


@dataclass(frozen=True)
class Recipe:
    """How parameters are to be moved.

    Args:
        kind: `muon`, `adamw` or a rule of the user's own.
        rate: the highest rate; `auto` for what suits the kind and the width, which is known of the first two.
        weight_decay: share of the rate by which matrices and embeddings shrink a step.
        momentum: Muon's.
        betas: AdamW's.
        dtype: precision of Muon's orthogonalisation.
    """

    kind: str | Own
    rate: float | Literal["auto"]
    weight_decay: float
    momentum: float
    betas: tuple[float, float]
    dtype: torch.dtype = torch.float32


class Optimizer:
    """All parameters' optimizers as one.

    Args:
        model: whose parameters are moved.
        recipe: how.
    """

    def __init__(self, model: Microformer, recipe: Recipe):
        self.named = dict(model.named_parameters())
        self.highest, tables, unembedding = _rates(recipe, model.spec.embed_dim)
        matrices, rest = _groups(model, recipe.weight_decay, self.highest, tables, unembedding)
        self.parts: list[Rule]
        match recipe.kind:
            case "adamw":
                self.parts = [AdamW(rest + matrices, self.highest, recipe.betas)]
            case "muon":
                muon = Muon(matrices, self.highest, recipe.momentum, dtype=recipe.dtype)
                self.parts = [muon, AdamW(rest, tables, recipe.betas)]
            case Own() as own if own.says("only_matrices", False):
                self.parts = [own.build(matrices, self.highest), AdamW(rest, tables, recipe.betas)]
            case Own() as own:
                self.parts = [own.build(rest + matrices, self.highest)]
        self._rates = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def set_rate(self, share: float) -> None:
        """Sets every group's rate to a share of its highest."""
        for part, rates in zip(self.parts, self._rates, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * share

    def step(self) -> None:
        """Moves every parameter and forgets the gradients."""
        for part in self.parts:
            part.step()
            part.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """What the optimizers remember, as `parameter/what`."""
        return {
            f"{name}/{what}": value
            for name, parameter in self.named.items()
            for part in self.parts
            for what, value in part.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state_dict` gave. Every parameter's memory is taken as it was, to the bit."""
        owner = {id(one): part for part in self.parts for group in part.param_groups for one in group["params"]}
        for key, value in state.items():
            name, what = key.rsplit("/", 1)
            parameter = self.named[name]
            owner[id(parameter)].state[parameter][what] = value.clone().to(parameter.device)


def usual_rate(kind: str, width: int) -> float:
    """What the rate `auto` is of muon or adamw, for a model of a width."""
    return _MUON_RATE if kind == "muon" else _ADAMW_RATE * min(1.0, _WIDTH / width)


def _rates(recipe: Recipe, width: int) -> tuple[float, float, float]:
    """The highest rates: of matrices, of embeddings, gains and biases, and of the unembedding.

    width: the model's.
    """
    adamw = usual_rate("adamw", width)
    narrower = _WIDTH / width
    match recipe.kind:
        case "muon":
            rate = usual_rate("muon", width) if recipe.rate == "auto" else recipe.rate
            return rate, rate * _TABLES_SHARE, rate * _UNEMBEDDING_SHARE * min(1.0, narrower)
        case "adamw":
            rate = adamw if recipe.rate == "auto" else recipe.rate
            return rate, rate, rate
    if recipe.rate == "auto":
        raise ValueError(f"no rate is known of {recipe.kind}")
    beside = adamw if isinstance(recipe.kind, Own) and recipe.kind.says("only_matrices", False) else recipe.rate
    return recipe.rate, beside, beside


def _groups(
    model: Microformer, decay: float, rate: float, tables: float, unembedding: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups of matrices, those alike that are as many on one another, and those of the rest."""
    by_role: dict[str, list[Tensor]] = defaultdict(list)
    by_rows: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    roles, outputs = model.roles(), model.outputs()
    for name, parameter in model.named_parameters():
        by_role[roles[name]].append(parameter)
        if roles[name] == "matrix":
            rows = outputs.get(name, ())
            by_rows[rows if len(rows) > 1 else ()].append(parameter)
    matrices = [
        {"role": "matrix", "params": alike, "rows": rows, "lr": rate, "weight_decay": decay}
        for rows, alike in by_rows.items()
    ]
    rest = [
        {"role": "embedding", "params": by_role["embedding"], "lr": tables, "weight_decay": decay},
        {"role": "unembedding", "params": by_role["unembedding"], "lr": unembedding, "weight_decay": decay},
        {"role": "gain", "params": by_role["gain"] + by_role["bias"], "lr": tables, "weight_decay": 0.0},
    ]
    return matrices, [group for group in rest if group["params"]]

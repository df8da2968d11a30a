"""Optimizers: which rule moves which parameter, by the role that the parameter declares.

Under `muon` the matrices move by Muon and the rest by AdamW; under `adamw` all do. The rates carry over widths: a Muon
step is scaled by the matrix's shape, and where AdamW moves what is summed over the width, its rate falls with it
(Yang et al. 2022, "Tensor Programs V"). Knows parameters and rates; no schedules, no files.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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
        kind: `muon` or `adamw`.
        rate: the highest rate; `auto` for what suits the kind and the width.
        weight_decay: share of the rate by which matrices and embeddings shrink a step.
        momentum: Muon's.
        betas: AdamW's.
        dtype: precision of Muon's orthogonalisation.
    """

    kind: str
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
        roles = model.roles()
        by_role: dict[str, list[Tensor]] = {role: [] for role in ("matrix", "embedding", "unembedding", "gain", "bias")}
        for name, parameter in self.named.items():
            by_role[roles[name]].append(parameter)

        narrower = _WIDTH / model.spec.embed_dim
        if recipe.kind == "muon":
            rate = _MUON_RATE if recipe.rate == "auto" else recipe.rate
            tables, unembedding = rate * _TABLES_SHARE, rate * _UNEMBEDDING_SHARE * min(1.0, narrower)
        else:
            rate = _ADAMW_RATE * min(1.0, narrower) if recipe.rate == "auto" else recipe.rate
            tables = unembedding = rate
        self.highest = rate

        decay = recipe.weight_decay
        adamw = [
            {"params": by_role["embedding"], "lr": tables, "weight_decay": decay},
            {"params": by_role["unembedding"], "lr": unembedding, "weight_decay": decay},
            {"params": by_role["gain"] + by_role["bias"], "lr": tables, "weight_decay": 0.0},
        ]
        self.parts: list[Rule] = []
        if recipe.kind == "muon":
            by_rows: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for name, rows in model.outputs().items():
                if roles.get(name) == "matrix":
                    by_rows[rows if len(rows) > 1 else ()].append(self.named[name])
            groups = [{"params": matrices, "rows": rows} for rows, matrices in by_rows.items()]
            self.parts.append(Muon(groups, rate, recipe.momentum, decay, recipe.dtype))
        else:
            adamw.append({"params": by_role["matrix"], "lr": rate, "weight_decay": decay})
        groups = [group for group in adamw if group["params"]]
        self.parts.append(AdamW(groups, rate, recipe.betas))
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

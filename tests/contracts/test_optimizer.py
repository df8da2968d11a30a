"""Optimizers keep their contracts, and each contract can fail: a broken one is found."""

import pytest
import torch

from microformer import contracts
from microformer.models.grammar import Own
from microformer.training.muon import Muon
from microformer.training.optimizers import Optimizer, Recipe
from microformer.training.rule import Rule


class Descent(Rule):
    """Gradient descent with momentum, as plainly as can be."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr, weight_decay=0.0)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    mean = self.state[one].setdefault("mean", torch.zeros_like(one))
                    mean.mul_(0.9).add_(one.grad)
                    one.sub_(group["lr"] * mean)


class OnlyMatrices(Descent):
    only_matrices = True


def made(kind):
    return lambda model, rate: Optimizer(model, Recipe(kind, rate, 0.1, 0.95, (0.9, 0.95)))


def broken(rule) -> set[str]:
    sentences = {(one.__doc__ or "").strip(): one.__name__ for one in contracts.OPTIMIZER_CONTRACTS}
    verdicts = contracts.check_optimizer(made(Own("here.py", rule.__name__, made=rule)))
    assert all(verdict.kept == (verdict.detail == "") for verdict in verdicts)
    return {sentences[verdict.contract] for verdict in verdicts if not verdict.kept}


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_the_built_in_optimizers_keep_every_contract(kind):
    assert [verdict for verdict in contracts.check_optimizer(made(kind)) if not verdict.kept] == []


@pytest.mark.parametrize("rule", [Descent, OnlyMatrices])
def test_one_of_ones_own_keeps_them_too(rule):
    assert broken(rule) == set()


def test_one_for_matrices_is_given_those_as_muon_is_and_adamw_the_rest():
    from microformer.contracts.optimizer import _model

    model = _model()
    own = made(Own("here.py", "OnlyMatrices", made=OnlyMatrices))(model, 0.01)
    muon = made("muon")(model, 0.01)

    assert isinstance(muon.parts[0], Muon)
    for mine, its in zip(own.parts[0].param_groups, muon.parts[0].param_groups, strict=True):
        assert {id(one) for one in mine["params"]} == {id(one) for one in its["params"]}
        assert mine["rows"] == its["rows"]
        assert mine["role"] == "matrix"
    assert {group["role"] for group in own.parts[1].param_groups} == {"embedding", "unembedding", "gain"}


def test_one_that_leaves_a_group_out_is_found():
    class Lazy(Descent):
        def step(self):
            self.param_groups, kept = self.param_groups[1:], self.param_groups
            super().step()
            self.param_groups = kept

    assert "moves_all" in broken(Lazy)


def test_one_that_ignores_the_rate_is_found():
    class Deaf(Descent):
        def step(self):
            for group in self.param_groups:
                group["lr"] = 0.01
            super().step()

    assert "follows_the_rate" in broken(Deaf)


def test_one_that_climbs_is_found():
    class Climber(Descent):
        def step(self):
            for group in self.param_groups:
                for one in group["params"]:
                    if one.grad is not None:
                        one.grad.neg_()
            super().step()

    assert broken(Climber) == {"learns"}


def test_one_that_draws_lots_is_found():
    class Gambler(Descent):
        def step(self):
            for group in self.param_groups:
                for one in group["params"]:
                    if one.grad is not None:
                        one.grad.mul_(0.5 + torch.rand(()))
            super().step()

    assert {"repeats", "resumes"} == broken(Gambler)


def test_one_that_remembers_outside_its_state_is_found():
    class Secret(Descent):
        count = 0

        def __init__(self, params, lr):
            super().__init__(params, lr)
            self.count = 0

        def step(self):
            self.count += 1
            for group in self.param_groups:
                group["lr"] /= self.count
            super().step()
            for group in self.param_groups:
                group["lr"] *= self.count

    assert broken(Secret) == {"resumes"}


def test_a_memory_that_no_checkpoint_keeps_is_found():
    class Counting(Descent):
        def step(self):
            super().step()
            for one in self.state.values():
                one["count"] = one.get("count", 0) + 1

    assert broken(Counting) == {"resumes"}

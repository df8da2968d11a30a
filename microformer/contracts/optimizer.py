"""The contracts of an optimizer. Knows no particular one: whoever asks hands over what makes it for a model."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from microformer.contracts.verdict import Verdict, verdict
from microformer.models.model import Microformer
from microformer.models.spec import Gelu, LayerNorm, LayerSpec, Learned, ModelSpec, Softmax, Swiglu

# Of this small model, at one of these an optimizer that can learn does.
RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_STEPS = 40


@runtime_checkable
class Moves(Protocol):
    """An optimizer of a whole model (training/optimizers.py)."""

    def set_rate(self, share: float) -> None: ...
    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


Make = Callable[[Microformer, float], Moves]


def check_optimizer(make: Make) -> list[Verdict]:
    """Every contract of an optimizer. make: it for a model, with a highest rate."""
    return [contract(make) for contract in OPTIMIZER_CONTRACTS]


def moves_all(make: Make) -> Verdict:
    """A step moves every parameter, by finite amounts."""
    model = _model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    _steps(model, make(model, 0.01), 2)
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        if torch.equal(parameter, old):
            return verdict(moves_all, f"{name} stays as it was")
        if not torch.isfinite(parameter).all():
            return verdict(moves_all, f"{name} has numbers that are not finite")
    return verdict(moves_all, "")


def follows_the_rate(make: Make) -> Verdict:
    """At a rate of 0 nothing moves."""
    model = _model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make(model, 0.01)
    optimizer.set_rate(0.0)
    _steps(model, optimizer, 2)
    still = zip(model.named_parameters(), before, strict=True)
    moved = [name for (name, parameter), old in still if not torch.equal(parameter, old)]
    return verdict(follows_the_rate, f"{moved[0]} moves" if moved else "")


def learns(make: Make) -> Verdict:
    """At one rate or another, 40 steps halve the loss of a batch."""
    losses = []
    for rate in RATES:
        model = _model()
        before = _loss(model)
        _steps(model, make(model, rate), _STEPS)
        losses.append(_loss(model) / before)
    best = min((loss for loss in losses if loss == loss), default=float("nan"))
    return verdict(
        learns, "" if best <= 0.5 else f"at best {best:.0%} of it is left, at rates from {RATES[-1]} to {RATES[0]:g}"
    )


def repeats(make: Make) -> Verdict:
    """The same start gives the same steps, to the bit."""
    first, again = _model(), _model()
    for model in (first, again):
        _steps(model, make(model, 0.01), 3)
    return verdict(repeats, "" if _equal(first, again) else "two results")


def resumes(make: Make) -> Verdict:
    """Kept and taken up again, it takes the same steps as if never stopped, to the bit."""
    whole, model, later = _model(), _model(), _model()
    _steps(whole, make(whole, 0.01), 4)
    optimizer = make(model, 0.01)
    _steps(model, optimizer, 2)
    kept = optimizer.state_dict()
    for name, value in kept.items():
        if not isinstance(value, Tensor):
            return verdict(resumes, f"its memory {name!r} is a {type(value).__name__}, and a checkpoint keeps tensors")
    later.load_state_dict(model.state_dict())
    taken_up = make(later, 0.01)
    taken_up.load_state_dict({name: value.clone() for name, value in kept.items()})
    _steps(later, taken_up, 2)
    return verdict(resumes, "" if _equal(whole, later) else "other steps: is all that it remembers in self.state?")


OPTIMIZER_CONTRACTS: tuple[Callable[[Make], Verdict], ...] = (moves_all, follows_the_rate, learns, repeats, resumes)


def _model() -> Microformer:
    layers = (LayerSpec(Softmax(), Gelu()), LayerSpec(Softmax(), Swiglu()))
    spec = ModelSpec(11, 16, 2, 24, 16, layers, Learned(), LayerNorm(), qk_norm=True, bias=True)
    model = Microformer(spec, seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # off their start, where zeros would keep gradients from the rest
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def _batch() -> Tensor:
    return torch.randint(11, (4, 17), generator=torch.Generator().manual_seed(1))


def _steps(model: Microformer, optimizer: Moves, count: int) -> None:
    ids = _batch()
    for _ in range(count):
        model.loss(ids[:, :-1], ids[:, 1:], None).backward()
        optimizer.step()


def _loss(model: Microformer) -> float:
    ids = _batch()
    with torch.no_grad():
        return float(model.loss(ids[:, :-1], ids[:, 1:], None))


def _equal(one: Microformer, other: Microformer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

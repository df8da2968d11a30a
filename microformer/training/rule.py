"""What the rules that move parameters share: groups of parameters with rates of their own, and a memory of each.

The shape of torch.optim.Optimizer without its class, which imports PyTorch's compiler: a second and 60 MB a start.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Rule(ABC):
    """A way in which parameters are moved.

    Args:
        params: parameters, or groups of them: `params`, and what differs from the defaults.
        defaults: what holds for every group, such as `lr`. A group's may be set anew before any step.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], **defaults: Any):
        given = list(params)
        groups = given if all(isinstance(one, dict) for one in given) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]  # type: ignore[dict-item]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @abstractmethod
    def step(self) -> None:
        """Moves every parameter that has a gradient."""

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

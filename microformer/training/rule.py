"""What the rules that move parameters share: groups of parameters with rates of their own, and a memory of each.

The shape of torch.optim.Optimizer without its class, which imports PyTorch's compiler: a second and 60 MB a start.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor


class Rule(ABC):
    """A way in which parameters are moved.

    Args:
        params: parameters, or groups of them: `params`, and what differs from the defaults. An Optimizer's groups have
            `lr`, `weight_decay`, the `role` of their parameters, and `rows` where a parameter is several matrices on
            one another.
        defaults: what holds for every group, such as `lr`. A group's may be set anew before any step.
    """

    # Whether it is for matrices alone; then AdamW moves the rest.
    only_matrices: ClassVar[bool] = False

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], **defaults: Any):
        given = list(params)
        groups = given if all(isinstance(one, dict) for one in given) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]  # type: ignore[dict-item]
        # What is remembered of each parameter: tensors, so that checkpoints can keep them.
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @abstractmethod
    def step(self) -> None:
        """Moves every parameter that has a gradient."""

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

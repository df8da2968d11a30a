"""Whose weight is whose: the parameters here beside those of another format, by name. Knows names and shapes, no files.

    ours  W_QKV [3 · d_model, d_model]      theirs  q_proj, k_proj, v_proj [d_model, d_model] each, one on the other
    ours  W_in  [d_ff, d_model]             theirs  c_fc [d_model, d_ff], which lies across (Hugging Face's Conv1D)

A format's map is a list of pairs, and the same list reads and writes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from microformer.errors import RunError


@dataclass(frozen=True)
class Pair:
    """One parameter here, and those of another format that hold the same numbers.

    Args:
        ours: its name here.
        theirs: their names; several stand on one another in ours, in this order.
        rows: how many rows, or numbers of a vector, each of theirs is.
        inputs: how long a row is; 0 for vectors.
        across: whether their matrices are ours transposed.
        zero: whether theirs may stand for nothing here: a bias that their format always has, and a model here may not.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...]
    inputs: int = 0
    across: bool = False
    zero: bool = False

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each of theirs."""
        if not self.inputs:
            return [(rows,) for rows in self.rows]
        return [(self.inputs, rows) if self.across else (rows, self.inputs) for rows in self.rows]


def linear(
    ours: str, theirs: str | tuple[str, ...], rows: int | tuple[int, ...], inputs: int, *, bias: bool = False,
    zero: bool = False, across: bool = False,
) -> Iterator[Pair]:  # fmt: skip
    """The pairs of a matrix and its bias; names without `.weight` and `.bias`.

    Args:
        bias: whether theirs has one.
        zero: whether ours has none, and so theirs is 0.
    """
    modules = (theirs,) if isinstance(theirs, str) else theirs
    heights = (rows,) if isinstance(rows, int) else rows
    yield Pair(f"{ours}.weight", tuple(f"{name}.weight" for name in modules), heights, inputs, across)
    if bias:
        yield Pair(f"{ours}.bias", tuple(f"{name}.bias" for name in modules), heights, zero=zero)


def norm(ours: str, theirs: str, width: int, *, bias: bool = False, zero: bool = False) -> Iterator[Pair]:
    """The pairs of a norm's gain, which others call its weight, and its bias; arguments as for `linear`."""
    yield Pair(f"{ours}.gain", (f"{theirs}.weight",), (width,))
    if bias:
        yield Pair(f"{ours}.bias", (f"{theirs}.bias",), (width,), zero=zero)


def ours(pairs: Iterable[Pair], tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Our parameters, in float32, of theirs.

    Args:
        pairs: the format's map.
        tensors: all of theirs, by name.
        where: what they were read from, for errors.

    Raises:
        RunError: one is missing, there is one too many, or one has another shape or what is no number.
    """
    pairs = list(pairs)
    known = {name for pair in pairs for name in pair.theirs}
    for name in [*known - tensors.keys(), *sorted(tensors.keys() - known)]:
        what = "lacks the tensor" if name in known else "has a tensor too many,"
        raise RunError(f"{where} {what} {name!r}.", "it was cut short, or it is another kind of model's.")
    found = {}
    for pair in pairs:
        parts = []
        for name, shape in zip(pair.theirs, pair.shapes(), strict=True):
            tensor = tensors[name]
            if tuple(tensor.shape) != shape:
                raise RunError(
                    f"{where} has {name!r} in shape {list(tensor.shape)}, where its configuration says {list(shape)}.",
                    "the weights and the configuration don't belong together.",
                )
            if not tensor.is_floating_point():
                raise RunError(f"{where} has {name!r} in {tensor.dtype}.", "quantized weights can't be read here.")
            if not bool(torch.isfinite(tensor).all()):
                raise RunError(f"{where} has numbers in {name!r} that are not finite.", "it diverged, or is damaged.")
            parts.append((tensor.T if pair.across and pair.inputs else tensor).float())
        found[pair.ours] = torch.cat(parts) if len(parts) > 1 else parts[0].contiguous()
    return found


def theirs(pairs: Iterable[Pair], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors of our parameters.

    Args:
        pairs: the format's map.
        parameters: ours, by name; every one of them is in the map.
    """
    pairs, given = list(pairs), {}
    for pair in pairs:
        if pair.ours in parameters:
            parts = parameters[pair.ours].split(list(pair.rows))
        else:
            assert pair.zero, pair.ours
            parts = [torch.zeros(shape) for shape in pair.shapes()]
        for name, part in zip(pair.theirs, parts, strict=True):
            given[name] = (part.T if pair.across and pair.inputs else part).contiguous()
    left = parameters.keys() - {pair.ours for pair in pairs}
    assert not left, left
    return given

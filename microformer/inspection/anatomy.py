"""The parts of a model as a diagram: a box each, with its parameters, its shape, its formula and where it is computed.

Made of the modules that compute, not of a drawing of them: what a part says of itself stands in the docstring of its
file, and its line is that of its `forward`. A part of the user's own is in the user's own file.
"""

import inspect
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from microformer.models.grammar import written
from microformer.models.model import Block, Microformer
from microformer.models.spec import ATTENTION, FEEDFORWARD, MEMORY, NORM, POSITIONS, ModelSpec, NoMemory, NoPositions

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Box:
    """A part.

    Args:
        id: its name among the boxes.
        label: what it is called.
        parent: the id of the box that it lies in; None for the model's own.
        shape: of what it gives for a text of n tokens, in words and numbers.
        parameters: how many numbers in it are learned.
        formula: the lines of its formula; empty where there is none.
        file, line: where it is computed; the file as from the folder that holds the package.
        code: `own` where it is the user's, else `microformer`.
        tap: the activation that it gives, as a tap calls it; None where none is.
    """

    id: str
    label: str
    parent: str | None
    shape: tuple[str | int, ...]
    parameters: int
    formula: str
    file: str
    line: int
    code: str
    tap: str | None


def boxes(model: Microformer) -> list[dict[str, Any]]:
    """The boxes of a model, from embedding to unembedding, in the order in which they are gone through."""
    spec, found = model.spec, []

    def add(id: str, label: str, part: object, shape: tuple[str | int, ...], parent: str | None = None, **more: Any):
        taken = {"parameters": _count(part), "tap": None, "formula": _formula(part), **more}
        file, line, code = _place(part)
        found.append(Box(id, label, parent, shape, file=file, line=line, code=code, **taken))

    stream = ("n", spec.embed_dim)
    add("embed", "token embedding", model.embed, stream, tap="hook_embed", formula="x = W_E[token]")
    if model.ngrams is not None:
        add("ngrams", f"n-grams of up to {spec.ngrams}", model.ngrams, stream)
    if not isinstance(spec.positions, NoPositions):
        tap = "hook_pos_embed" if model.positions.embeds else None
        add("positions", f"positions: {written([spec.positions], POSITIONS)}", model.positions, stream, tap=tap)
    if not isinstance(spec.memory, NoMemory):
        add("memory", f"memory: {written([spec.memory], MEMORY)}", model.memory, stream)
    for i in range(spec.depth):
        _block(add, spec, cast(Block, model.blocks[i % len(model.blocks)]), i, repeated=i >= len(model.blocks))
    if not isinstance(model.norm, nn.Identity):
        add("ln_final", _norm(spec), model.norm, stream, tap="ln_final.hook_normalized")
    tied: dict[str, Any] = (
        {"parameters": 0} if spec.tie_embeddings else {}
    )  # counted with the embedding, whose they are
    label = "unembedding (tied)" if spec.tie_embeddings else "unembedding"
    add("unembed", label, model.unembed, ("n", spec.vocab_size), formula="logits = x W_U", **tied)
    return [asdict(box) for box in found]


def _block(add: Any, spec: ModelSpec, block: Block, i: int, repeated: bool) -> None:
    """The boxes of a layer. repeated: whether its weights are those of an earlier box, and counted there."""
    name, stream = f"blocks.{i}", ("n", spec.embed_dim)
    heads = ("n", spec.num_heads, spec.d_head)
    shared: dict[str, Any] = {"parameters": 0} if repeated else {}
    attention, feedforward = block.attention, block.feedforward
    layer, norm = spec.layers[i % len(spec.layers)], _norm(spec)
    add(name, f"layer {i}", block, stream, tap=f"{name}.hook_resid_post", formula=_flow(spec), **shared)
    pre = spec.norm_placement != "post"
    if pre:
        add(f"{name}.norm_1", norm, block.residual_1.norm, stream, name, **shared)
    add(
        f"{name}.attn", "attention", attention, stream, name, tap=f"{name}.hook_attn_out",
        formula="q, k, v = x W_Q, x W_K, x W_V\nout = concat(z) W_O", **shared,
    )  # fmt: skip
    inside = f"{name}.attn"
    add(
        f"{inside}.W_QKV", "queries, keys, values", attention.W_QKV, heads, inside, tap=f"{inside}.hook_q",
        formula="q, k, v = x W_Q, x W_K, x W_V", **shared,
    )  # fmt: skip
    if attention.norm_q is not None and attention.norm_k is not None:
        both = {"parameters": _count(attention.norm_q) + _count(attention.norm_k), **shared}
        label = "norms of queries and keys"
        add(f"{inside}.qk_norm", label, attention.norm_q, heads, inside, **both)
    shows = "hook_pattern" in attention.kernel.tap_names
    kernel = {"tap": f"{inside}.hook_pattern"} if shows else {}
    kind = f"kernel: {written([layer.attention], ATTENTION)}"
    add(f"{inside}.kernel", kind, attention.kernel, heads, inside, **kernel, **shared)
    if attention.retrieval is not None:
        add(f"{inside}.retrieval", "looked up", attention.retrieval, heads, inside, **shared)
    if attention.W_G is not None:
        formula = "z ⊙ sigmoid(x W_G)"
        add(f"{inside}.W_G", "output gate", attention.W_G, stream, inside, formula=formula, **shared)
    add(f"{inside}.W_O", "output", attention.W_O, stream, inside, formula="out = concat(z) W_O", **shared)
    if not pre:
        add(f"{name}.norm_1", norm, block.residual_1.norm, stream, name, **shared)
    if block.residual_1.norm_after is not None:
        after = block.residual_1.norm_after
        add(f"{name}.norm_1_after", norm, after, stream, name, **shared)
    second = block.residual_2
    if second is not None and pre:
        add(f"{name}.norm_2", norm, second.norm, stream, name, **shared)
    label = f"feed-forward: {written([layer.feedforward], FEEDFORWARD)}"
    add(f"{name}.mlp", label, feedforward, stream, name, tap=f"{name}.hook_mlp_out", **shared)
    if second is not None and not pre:
        add(f"{name}.norm_2", norm, second.norm, stream, name, **shared)
    if second is not None and second.norm_after is not None:
        add(f"{name}.norm_2_after", norm, second.norm_after, stream, name, **shared)


def _norm(spec: ModelSpec) -> str:
    return f"norm: {written([spec.norm], NORM)}"


def _flow(spec: ModelSpec) -> str:
    """How a layer changes the stream."""
    if spec.parallel:
        return "x ← x + attention(norm(x)) + feedforward(norm(x))"
    way = {"pre": "x ← x + f(norm(x))", "post": "x ← norm(x + f(x))", "sandwich": "x ← x + norm(f(norm(x)))"}
    return f"{way[spec.norm_placement]}, f = attention, then feed-forward"


def _count(part: object) -> int:
    return sum(one.numel() for one in part.parameters()) if isinstance(part, nn.Module) else 0


def _place(part: object) -> tuple[str, int, str]:
    """File and line of a part's `forward` (or of its class, where it has none), and whose it is."""
    kind = type(part)
    own = kind.__module__.startswith("own_")
    # What is no function of one input has the part that does its work under another name.
    names = ("forward", "turn", "embed", "bias", "between")
    mine = [one for one in kind.__mro__ if one.__module__.startswith(("microformer.", "own_"))]
    method = next((one.__dict__[name] for one in mine[:-1] or mine for name in names if name in one.__dict__), kind)
    try:
        line = inspect.getsourcelines(method)[1]
    except (OSError, TypeError):
        line = 1  # its source is not at hand
    file = Path(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
    try:
        shown = file.relative_to(_PACKAGE.parent).as_posix()
    except ValueError:
        shown = file.name  # no more of the disk than a reader needs
    return shown, max(1, line), "own" if own else "microformer"


def _formula(part: object) -> str:
    """The first indented lines of the docstring of a part's class, or of its file: there the formula stands."""
    kind = type(part)
    for text in (kind.__doc__, getattr(sys.modules.get(kind.__module__), "__doc__", None)):
        if not text:
            continue
        lines = inspect.cleandoc(text).splitlines()
        if re.search(r"[=←]", lines[0]):
            return lines[0].strip()
        formula: list[str] = []
        for line in lines[1:]:
            if line.strip() in ("Args:", "Returns:", "Raises:"):
                break
            if line.startswith("    "):
                formula.append(line.strip())
            elif formula:
                break
        if any(re.search(r"[=←]", line) for line in formula):
            return "\n".join(formula)
    return ""

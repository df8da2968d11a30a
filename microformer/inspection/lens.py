"""What a model would predict if it stopped after a layer.

    lens_l = unembed(norm(x_l))        x_l: the residual stream that layer l reads; x_depth: what the last layer leaves

nostalgebraist 2020, "interpreting GPT: the logit lens". The final norm takes its mean and size from each x_l itself
(TransformerLens's `accumulated_resid` with `recompute_ln`). The last row is the model's own logits.

Where norms stand after each half (post), the stream is normed between layers and there is no final norm; so all but the
first row are of the kind that the unembedding learned to read, and the first, the bare embedding, is of any size.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microformer.inspection.activations import TraceError
from microformer.inspection.trace import Trace


def accumulated_resid(seen: Trace) -> Float[Tensor, "layer_and_last pos d_model"]:
    """The residual stream before each layer, and after the last."""
    depth = seen.model.spec.depth
    before = [seen.cache[f"blocks.{layer}.hook_resid_pre"][0] for layer in range(depth)]
    return torch.stack([*before, seen.cache[f"blocks.{depth - 1}.hook_resid_post"][0]])


@torch.no_grad()
def logit_lens(seen: Trace, layers: Sequence[int] | None = None) -> Float[Tensor, "layer_and_last pos vocab"]:
    """The logits of each next token, by what each layer reads.

    Args:
        seen: a trace.
        layers: which rows, 0 to the number of layers; None: all. A row takes pos · vocab · 4 bytes.

    Raises:
        TraceError: there is no such layer.
    """
    model, stream = seen.model, accumulated_resid(seen)
    rows = range(len(stream)) if layers is None else layers
    if wrong := [row for row in rows if not -len(stream) <= row < len(stream)]:
        raise TraceError(f"the lens has no row {wrong[0]}.", f"its rows are 0 to {len(stream) - 1}.")
    return torch.stack([model.unembed(model.norm(stream[row])) for row in rows])


def residual_norms(seen: Trace) -> Float[Tensor, "step pos"]:
    """The length ‖x‖ of the residual stream at each position: before the first layer, then after each half of a layer,
    2 · layers + 1 rows; where halves work in parallel, after each layer, layers + 1 rows."""
    halves = ("resid_post",) if seen.model.spec.parallel else ("resid_mid", "resid_post")
    names = [f"blocks.{layer}.hook_{half}" for layer in range(seen.model.spec.depth) for half in halves]
    return torch.stack([seen.cache[name][0].norm(dim=-1) for name in ("blocks.0.hook_resid_pre", *names)])

"""What a head does from token to token, by its weights alone, whatever the text.

    QK[query, key] = q(query) · k(key) / sqrt(d_head)        q, k: of the norm of the token's embedding
    OV[source, out] = W_U[out] · gain ⊙ (v(source) W_O)      gain: the final norm's, whose divisor a text decides

The full circuits of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", with the layer's own norm
before them, as the layer reads. QK is what the head's scores would be if the stream held the two embeddings alone;
positions and SCORE_CAP are left out, and so are the gate (OUTPUT_GATE) and norms around a half (sandwich) of OV.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microformer.inspection.activations import TraceError, block_of
from microformer.models.model import Microformer
from microformer.models.norms import LayerNorm, RMSNorm

# The most tokens of a table that nobody chose: 256 MiB.
_MOST = 8192


@torch.no_grad()
def qk_table(
    model: Microformer, layer: int, head: int, tokens: Sequence[int] | None = None
) -> Float[Tensor, "query key"]:
    """How much a token as a query asks for each as a key: scores before positions.

    Args:
        model: whose.
        layer, head: which, from 0.
        tokens: of which ids; None: of the whole vocabulary.

    Raises:
        TraceError: there is no such head or token, the kernel has no scores, or the table would be too large.
    """
    ids, attention = _ids(model, tokens), block_of(model, layer).attention
    _check_head(model, head)
    if not attention.kernel.scores:
        raise TraceError(f"layer {layer} compares no pairs of tokens.", "ov_table is there for every head.")
    q, k, _ = _read(model, layer, ids)
    if attention.norm_q is not None and attention.norm_k is not None:
        q, k = attention.norm_q(q), attention.norm_k(k)
    groups = model.spec.num_heads // model.spec.kv_heads
    return q[:, head] @ k[:, head // groups].T * model.spec.d_head**-0.5


@torch.no_grad()
def ov_table(
    model: Microformer, layer: int, head: int, tokens: Sequence[int] | None = None
) -> Float[Tensor, "source out"]:
    """How much a head that looks at a token alone adds to the logit of each, before the final norm divides.

    Arguments and errors as for `qk_table`; and TraceError where the final norm is one of the user's own.
    """
    ids, attention = _ids(model, tokens), block_of(model, layer).attention
    _check_head(model, head)
    groups, width = model.spec.num_heads // model.spec.kv_heads, model.spec.d_head
    v = _read(model, layer, ids)[2][:, head // groups]
    said = v @ attention.W_O.weight[:, head * width : (head + 1) * width].T
    match model.norm:
        case LayerNorm(gain=gain):
            said = gain * (said - said.mean(-1, keepdim=True))
        case RMSNorm(gain=gain):
            said = gain * said
        case torch.nn.Identity():
            pass
        case _:
            raise TraceError("what the final norm of this model does to a part is not known.", "qk_table needs none.")
    return said @ model.unembed.weight[ids].T


def _read(model: Microformer, layer: int, ids: Int[Tensor, "token"]) -> tuple[Tensor, ...]:
    """Queries, keys and values of embeddings alone, as a layer reads them. [token head d_head]"""
    block = block_of(model, layer)
    x = block.residual_1.read((model.embed(ids) * model.spec.embed_scale).unsqueeze(0))[0]
    return block.attention.W_QKV(x).unflatten(-1, (-1, model.spec.d_head)).split(list(block.attention.heads), dim=1)


def _ids(model: Microformer, tokens: Sequence[int] | None) -> Int[Tensor, "token"]:
    size = model.spec.vocab_size
    if tokens is None and size > _MOST:
        raise TraceError(f"a table of {size:,} by {size:,} tokens is too large.", "choose some: tokens=[…].")
    listed = list(range(size)) if tokens is None else [int(one) for one in tokens]
    if wrong := [one for one in listed if not 0 <= one < size]:
        raise TraceError(f"there is no token {wrong[0]}.", f"ids are 0 to {size - 1}.")
    return torch.tensor(listed, dtype=torch.long, device=model.embed.weight.device)


def _check_head(model: Microformer, head: int) -> None:
    if not 0 <= head < model.spec.num_heads:
        raise TraceError(f"a layer has no head {head}.", f"its heads are 0 to {model.spec.num_heads - 1}.")

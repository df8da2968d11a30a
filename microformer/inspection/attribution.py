"""A logit as a sum: what each part of the model put into it.

    logit(token) = Σ_parts  W_U[token] · norm(part)        norm: with the mean and size it had, which makes it linear

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; direct logit attribution in TransformerLens
(`stack_head_results`, `logit_attrs`). The parts are the embeddings, each head, each feed-forward, and the biases of W_O
and of norms together. What is added later through factors (RESIDUAL_SCALARS) or a norm of its own (sandwich) is taken
through them, so that the sum is the logit. An effect that goes through a later layer is counted to that layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microformer.inspection.activations import TraceError, block_of
from microformer.inspection.trace import Trace
from microformer.models.norms import LayerNorm, RMSNorm
from microformer.models.residual import Residual

_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "ln_final.hook_normalized")


def direct_logit_attribution(
    seen: Trace, position: int, token: int, rival: int | None = None
) -> tuple[list[str], Float[Tensor, "part"]]:
    """What each part adds to a logit, or to the difference of two.

    Args:
        seen: a trace.
        position: whose prediction; it is of the token after it.
        token: the id whose logit it is.
        rival: the id whose logit is taken off it; None for none.

    Returns:
        the parts' names (embed, ngrams, pos_embed, L0H0 …, L0.mlp …, bias, as far as the model has them; L0.attn where
        an edit replaced what a layer's heads say together) and their values, which sum to the logit.

    Raises:
        TraceError: the norms after each half leave no sum (NORM_PLACEMENT = "post"), a norm of the user's own is not
            known to be linear, a patch replaced the stream itself, or there is no such position or token.
    """
    size = seen.model.spec.vocab_size
    for one in (token, token if rival is None else rival):
        if not 0 <= one < size:
            raise TraceError(f"there is no token {one}.", f"ids are 0 to {size - 1}.")
    labels, parts = decompose_resid(seen, position)
    weight = seen.model.unembed.weight.detach().double()
    direction = weight[token] - (0 if rival is None else weight[rival])
    norm, stream = seen.model.norm, _at(seen, f"blocks.{seen.model.spec.depth - 1}.hook_resid_post", position)
    normed = _frozen(norm, stream, parts)
    if (bias := _bias(norm)) is not None:
        normed[labels.index("bias")] += bias
    return labels, (normed[:, 0] @ direction).float()


@torch.no_grad()
def decompose_resid(seen: Trace, position: int | None = None) -> tuple[list[str], Float[Tensor, "part pos d_model"]]:
    """The last residual stream, before the final norm, as a sum of parts: in float64, for sums of many.

    Args:
        seen: a trace.
        position: of which position; None: of all.

    Raises:
        TraceError: as for `direct_logit_attribution`.
    """
    model, spec = seen.model, seen.model.spec
    if spec.norm_placement == "post":
        raise TraceError(
            "a logit of this model is no sum of its parts: a norm stands after every half (NORM_PLACEMENT = 'post').",
            "models with pre or sandwich norms can be taken apart; the logit lens works for all.",
        )
    if touched := [name for name in seen.changed if name.endswith(_STREAM)]:
        raise TraceError(f"a patch replaced {touched[0]}: the parts no longer sum to it.", "patch a head or a half.")
    if position is not None and not -len(seen.ids) <= position < len(seen.ids):
        raise TraceError(f"the text has no position {position}.", f"its positions are 0 to {len(seen.ids) - 1}.")

    embedded = _at(seen, "hook_embed", position)
    parts = {"embed": embedded}
    if model.ngrams is not None:
        ids = seen.ids if position is None else seen.ids[position].reshape(1)
        parts["embed"] = (model.embed(ids) * spec.embed_scale).double()
        parts["ngrams"] = embedded - parts["embed"]
    if "hook_pos_embed" in seen.cache:
        parts["pos_embed"] = _at(seen, "hook_pos_embed", position)
    bias = torch.zeros_like(embedded) if spec.bias else None

    for layer in range(spec.depth):
        block = block_of(model, layer)
        attended, thought = (_at(seen, f"blocks.{layer}.hook_{half}_out", position) for half in ("attn", "mlp"))
        heads, mlp = _heads(seen, layer, position, attended), {f"L{layer}.mlp": thought}
        if block.residual_2 is None:
            steps = [(block.residual_1, attended + thought, {**heads, **mlp})]
        else:
            steps = [(block.residual_1, attended, heads), (block.residual_2, thought, mlp)]
        for residual, made, entering in steps:
            kept, added, constant = _entered(residual, made, torch.stack(list(entering.values())))
            parts = {label: kept * one for label, one in parts.items()}
            bias = None if bias is None else kept * bias + constant
            named = dict(zip(entering, added, strict=True))
            bias = _with(bias, named.pop("bias", None))
            parts |= named
    parts |= {} if bias is None else {"bias": bias}
    return list(parts), torch.stack(list(parts.values()))


def _heads(seen: Trace, layer: int, position: int | None, attended: Tensor) -> dict[str, Tensor]:
    """What each head of a layer says, [pos d_model] each, and the bias; the whole where an edit replaced the sum."""
    if f"blocks.{layer}.hook_attn_out" in seen.changed:
        return {f"L{layer}.attn": attended}
    block = block_of(seen.model, layer)
    attention, z = block.attention, _at(seen, f"blocks.{layer}.attn.hook_z", position)
    if attention.W_G is not None:
        read = block.residual_1.read(_at(seen, f"blocks.{layer}.hook_resid_pre", position).float()[None])
        z = z * torch.sigmoid(attention.W_G(read)).view(z.shape).double()
    W_O = attention.W_O.weight.double().unflatten(1, z.shape[1:])
    said = torch.einsum("phd,mhd->hpm", z, W_O)
    bias = {} if attention.W_O.bias is None else {"bias": attention.W_O.bias.double().expand_as(said[0])}
    return {f"L{layer}H{head}": one for head, one in enumerate(said)} | bias


def _entered(residual: Residual, made: Tensor, parts: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float]:
    """How a half comes into the stream (residual.py), for the parts of what it made: what the stream is times; the
    parts as they are added; and what is added besides."""
    constant: Tensor | float = 0.0
    if residual.norm_after is not None:
        parts = _frozen(residual.norm_after, made, parts)
        constant = 0.0 if (bias := _bias(residual.norm_after)) is None else bias
    if residual.scalars is None:
        return 1.0, parts, constant
    kept, added = residual.scalars.double().unbind()
    return kept, added * parts, added * constant


def _frozen(norm: nn.Module, x: Tensor, parts: Float[Tensor, "part pos d_model"]) -> Float[Tensor, "part pos d_model"]:
    """The norm of a sum x, without its bias, for each of the parts of the sum."""
    match norm:
        case LayerNorm(eps=eps, gain=gain):
            size = (x.var(-1, correction=0, keepdim=True) + eps).sqrt()
            return gain.detach().double() * (parts - parts.mean(-1, keepdim=True)) / size
        case RMSNorm(eps=eps, gain=gain):
            return gain.detach().double() * parts / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    raise TraceError(
        f"a logit of this model can't be taken apart: what its norm {type(norm).__name__} does to a part is not known.",
        "the logit lens works with every norm.",
    )


def _bias(norm: nn.Module) -> Tensor | None:
    return norm.bias.detach().double() if isinstance(norm, LayerNorm) and norm.bias is not None else None


def _with(bias: Tensor | None, more: Tensor | None) -> Tensor | None:
    return bias if more is None or bias is None else bias + more


def _at(seen: Trace, name: str, position: int | None) -> Float[Tensor, "pos ..."]:
    """An activation at one position, or at all, in float64."""
    whole = seen.cache[name][0]
    return (whole if position is None else whole[position].unsqueeze(0)).double()

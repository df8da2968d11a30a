"""Feed-forward: what each position makes of what attention brought it, on its own. One file a shape."""

from microformer.models import spec
from microformer.models.feedforward.base import FeedForward
from microformer.models.feedforward.gated import Gated
from microformer.models.feedforward.mlp import MLP
from microformer.models.feedforward.moe import MoE

__all__ = ["MLP", "FeedForward", "Gated", "MoE", "build"]


def build(kind: spec.FeedForward, model: spec.ModelSpec) -> FeedForward:
    """The feed-forward that a spec describes, sized for a model."""
    match kind:
        case spec.Gelu():
            return MLP(model.embed_dim, model.ff_dim, "gelu", bias=model.bias)
        case spec.GeluTanh():
            return MLP(model.embed_dim, model.ff_dim, "gelu_tanh", bias=model.bias)
        case spec.Relu():
            return MLP(model.embed_dim, model.ff_dim, "relu", bias=model.bias)
        case spec.Relu2():
            return MLP(model.embed_dim, model.ff_dim, "relu2", bias=model.bias)
        case spec.Swiglu():
            return Gated(model.embed_dim, model.ff_dim, "silu", bias=model.bias)
        case spec.Geglu():
            return Gated(model.embed_dim, model.ff_dim, "gelu", bias=model.bias)
        case spec.MoE(experts=experts, k=k, balance=balance):
            return MoE(model.embed_dim, model.ff_dim, experts, k, balance, bias=model.bias)
        case spec.Own() as own:
            return own.build(model)

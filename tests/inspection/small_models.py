"""Models that take a moment, of every kind that inspection has to get right, their weights not at their start."""

from functools import cache

import torch

from microformer.models.grammar import one, per_layer
from microformer.models.model import Microformer
from microformer.models.spec import ATTENTION, FEEDFORWARD, MEMORY, NORM, POSITIONS, LayerSpec, ModelSpec

VOCAB, CONTEXT = 11, 8
_USUAL = {
    "attention": "softmax", "positions": "rope", "feedforward": "gelu", "norm": "rmsnorm", "memory": "none",
}  # fmt: skip
KINDS = {
    "usual": {},
    "gpt2": {"positions": "learned", "norm": "layernorm", "bias": True, "tie_embeddings": True},
    "window, alibi": {"attention": "window(3, sinks=1)", "positions": "alibi", "score_cap": 2.0},
    "strided, t5": {"attention": "strided(3) fixed(3, 1)", "positions": "t5"},
    "sparsemax, entmax": {"attention": "sparsemax entmax15", "positions": "none", "qk_norm": True},
    "topk, sigmoid": {"attention": "topk(3) sigmoid", "positions": "sinusoidal", "feedforward": "relu2"},
    "linear": {"attention": "linear", "feedforward": "geglu"},
    "differential": {"attention": "differential", "feedforward": "swiglu moe(3, 2)"},
    "few keys, gate": {"num_kv_heads": 2, "output_gate": True, "bias": True, "embed_scale": 4.0},
    "parallel, loops": {"parallel": True, "loops": 2, "residual_scalars": True, "ngrams": 3, "ngram_entries": 50},
    "sandwich": {"norm_placement": "sandwich", "norm": "layernorm", "bias": True, "residual_scalars": True},
    "parallel sandwich": {"norm_placement": "sandwich", "parallel": True, "output_gate": True},
    "post": {"norm_placement": "post", "norm": "layernorm", "positions": "learned"},
    "xl": {"memory": "xl(5)", "positions": "alibi"},
    "xl, window": {"memory": "xl(5)", "attention": "window(4)", "ngrams": 2, "ngram_entries": 50},
    "compressive": {"memory": "compressive(3, 4, 2)"},
    "recurrent": {"memory": "recurrent(2)", "positions": "learned", "num_kv_heads": 1},
    "tokens": {"memory": "tokens(2)", "norm": "layernorm", "bias": True},
    "knn": {"memory": "knn(12, 3)", "output_gate": True},
}
# Whose shares sum to 1.
SUMMED = [kind for kind in KINDS if kind not in ("topk, sigmoid", "differential")]


@cache
def model_of(kind: str) -> Microformer:
    """A model of a kind; one for all tests, which don't change it."""
    chosen = {**_USUAL, **KINDS[kind]}
    slots = {name: chosen.pop(name) for name in _USUAL}
    parts = zip(
        per_layer(slots["attention"], ATTENTION, "ATTENTION", 2),
        per_layer(slots["feedforward"], FEEDFORWARD, "FEEDFORWARD", 2),
        strict=True,
    )
    spec = ModelSpec(
        VOCAB, 16, 4, 24, CONTEXT, tuple(LayerSpec(*pair) for pair in parts),
        positions=one(slots["positions"], POSITIONS, "POSITIONS"), norm=one(slots["norm"], NORM, "NORM"),
        memory=one(slots["memory"], MEMORY, "MEMORY"), **chosen,
    )  # fmt: skip
    model = Microformer(spec).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def text_of(kind: str, seed: int = 2) -> torch.Tensor:
    """Ids: a context of them, or where a memory carries two contexts and a half."""
    length = 5 * CONTEXT // 2 if model_of(kind).spec.carries else CONTEXT
    return torch.randint(VOCAB, (length,), generator=torch.Generator().manual_seed(seed))

"""Which published kind of model a spec is, if any: what each can express, and what none can.

    gpt1     learned positions, LayerNorm after each half, tied          OpenAIGPTLMHeadModel
    gpt2     learned positions, LayerNorm before each half               GPT2LMHeadModel; nanoGPT, minGPT
    llama    rotary positions, RMSNorm before each half, a gate          LlamaForCausalLM
    qwen3    as llama, with normed queries and keys                      Qwen3ForCausalLM

Knows no format: what a kind's files look like is gpt.py's and llama.py's.
"""

from typing import Any, Literal

from microformer.errors import SettingsError
from microformer.models import grammar, spec
from microformer.models.spec import LayerSpec, ModelSpec

Family = Literal["gpt1", "gpt2", "llama", "qwen3"]
ALL: tuple[Family, ...] = ("gpt1", "gpt2", "llama", "qwen3")
# The epsilon of the norms of queries and keys.
QK_EPS = 1e-6


def of(model: ModelSpec) -> Family:
    """The family that a model belongs to.

    Raises:
        SettingsError: none of them has one of its components, which is named.
    """
    layers = model.layers
    _want("ATTENTION", {layer.attention for layer in layers} == {spec.Softmax()}, _attention(model), "softmax")
    _want("MEMORY", model.memory == spec.NoMemory(), grammar.written([model.memory], spec.MEMORY), "none")
    for name, usual in (
        ("ngrams", 1), ("loops", 1), ("parallel", False), ("residual_scalars", False), ("output_gate", False),
        ("score_cap", 0.0), ("embed_scale", 1.0),
    ):  # fmt: skip
        _want(name.upper(), getattr(model, name) == usual, getattr(model, name), usual)
    _want("NORM_PLACEMENT", model.norm_placement != "sandwich", model.norm_placement, "pre")
    kinds = {layer.feedforward for layer in layers}
    _want("FEEDFORWARD", len(kinds) == 1, _feedforward(model), "one kind in all layers")
    match model.positions:
        case spec.Learned():
            return _gpt(model)
        case spec.Rope():
            return _llama(model)
    said = grammar.written([model.positions], spec.POSITIONS)
    raise _refused("POSITIONS", said, "rope or learned")


def layers(each: LayerSpec, number: int) -> tuple[LayerSpec, ...]:
    """So many layers alike; of a number that no model has, one more than any has, which its spec refuses."""
    return (each,) * min(number, grammar.MOST_LAYERS + 1)


def _gpt(model: ModelSpec) -> Family:
    kind = model.layers[0].feedforward
    beside = " with POSITIONS = 'learned'"
    post = model.norm_placement == "post"
    _want("NORM", isinstance(model.norm, spec.LayerNorm), _norm(model), "layernorm", beside)
    bends = (spec.GeluTanh, spec.Relu) if post else (spec.GeluTanh, spec.Gelu, spec.Relu, spec.Relu2)
    _want("FEEDFORWARD", isinstance(kind, bends), _feedforward(model), "gelu_tanh", beside)
    _want("QK_NORM", not model.qk_norm, model.qk_norm, False, beside)
    _want("NUM_KV_HEADS", model.kv_heads == model.num_heads, model.kv_heads, "auto", beside)
    if not post:
        return "gpt2"
    _want("TIE_EMBEDDINGS", model.tie_embeddings, False, True, " with NORM_PLACEMENT = 'post'")
    _want(
        "FF_DIM",
        model.ff_dim == 4 * model.embed_dim,
        model.ff_dim,
        4 * model.embed_dim,
        " with NORM_PLACEMENT = 'post'",
    )
    return "gpt1"


def _llama(model: ModelSpec) -> Family:
    beside = " with POSITIONS = 'rope'"
    _want("NORM", isinstance(model.norm, spec.RMSNorm), _norm(model), "rmsnorm", beside)
    _want("NORM_PLACEMENT", model.norm_placement == "pre", model.norm_placement, "pre", beside)
    kind = model.layers[0].feedforward
    _want("FEEDFORWARD", isinstance(kind, (spec.Swiglu, spec.Geglu)), _feedforward(model), "swiglu", beside)
    if model.d_head % 2:
        raise _refused("EMBED_DIM", f"{model.embed_dim} in {model.num_heads} heads", "an even width of a head")
    if not model.qk_norm:
        return "llama"
    _want("BIAS", not model.bias, True, False, " with QK_NORM")
    _want("NORM", model.norm == spec.RMSNorm(QK_EPS), _norm(model), "rmsnorm", " with QK_NORM")
    return "qwen3"


def _want(setting: str, so: bool, said: Any, instead: Any, beside: str = "") -> None:
    if not so:
        raise _refused(setting, said, instead, beside)


def _refused(setting: str, said: Any, instead: Any, beside: str = "") -> SettingsError:
    shown = f"'{instead}'" if isinstance(instead, str) and " " not in instead else instead
    return SettingsError(
        f"{setting} {said}{beside} is in no published kind of model: GPT-1, GPT-2, Llama and Qwen3 lack it.",
        f"train with {setting} = {shown}; --to safetensors takes every model, and --to onnx most.",
    )


def _attention(model: ModelSpec) -> str:
    return grammar.written([layer.attention for layer in model.layers], spec.ATTENTION)


def _feedforward(model: ModelSpec) -> str:
    return grammar.written([layer.feedforward for layer in model.layers], spec.FEEDFORWARD)


def _norm(model: ModelSpec) -> str:
    return grammar.written([model.norm], spec.NORM)

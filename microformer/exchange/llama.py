"""Llama, and Qwen3, which norms queries and keys besides, as Hugging Face keeps them: names, layouts, configurations.

    model.layers.0.self_attn.q_proj, k_proj, v_proj       here one matrix, W_QKV, of the three on one another
    model.layers.0.mlp.gate_proj, up_proj, down_proj      W_gate, W_in, W_out

Rotary positions pair the halves of a head in both, so that no row changes its place.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from microformer.errors import RunError
from microformer.exchange import families, maps
from microformer.exchange.families import Family
from microformer.exchange.maps import Pair
from microformer.models import spec
from microformer.models.spec import LayerSpec, ModelSpec

_ACTIVATIONS = {"silu": spec.Swiglu, "swish": spec.Swiglu, "gelu": spec.Geglu}


def pairs(model: ModelSpec) -> Iterator[Pair]:
    """The map."""
    width, middle, bias = model.embed_dim, model.ff_dim, model.bias
    heights = (width, model.kv_heads * model.d_head, model.kv_heads * model.d_head)
    yield Pair("embed.weight", ("model.embed_tokens.weight",), (model.vocab_size,), width)
    for i in range(model.num_layers):
        here, there = f"blocks.{i}", f"model.layers.{i}"
        three = tuple(f"{there}.self_attn.{which}_proj" for which in "qkv")
        yield from maps.norm(f"{here}.residual_1.norm", f"{there}.input_layernorm", width)
        yield from maps.linear(f"{here}.attention.W_QKV", three, heights, width, bias=bias)
        yield from maps.linear(f"{here}.attention.W_O", f"{there}.self_attn.o_proj", width, width, bias=bias)
        if model.qk_norm:
            yield from maps.norm(f"{here}.attention.norm_q", f"{there}.self_attn.q_norm", model.d_head)
            yield from maps.norm(f"{here}.attention.norm_k", f"{there}.self_attn.k_norm", model.d_head)
        yield from maps.norm(f"{here}.residual_2.norm", f"{there}.post_attention_layernorm", width)
        yield from maps.linear(f"{here}.feedforward.W_gate", f"{there}.mlp.gate_proj", middle, width, bias=bias)
        yield from maps.linear(f"{here}.feedforward.W_in", f"{there}.mlp.up_proj", middle, width, bias=bias)
        yield from maps.linear(f"{here}.feedforward.W_out", f"{there}.mlp.down_proj", width, middle, bias=bias)
    yield from maps.norm("norm", "model.norm", width)
    if not model.tie_embeddings:
        yield Pair("unembed.weight", ("lm_head.weight",), (model.vocab_size,), width)


def model_of(config: Mapping[str, Any], family: Family) -> ModelSpec:
    """The model that a Hugging Face configuration describes.

    Raises:
        RunError: it asks for what can't be had here.
    """
    width, heads = config["hidden_size"], config["num_attention_heads"]
    bias = config.get("attention_bias", False)
    refused = [
        ("hidden_act", (act := config.get("hidden_act", "silu")), act not in _ACTIVATIONS),
        ("head_dim", (wide := config.get("head_dim") or width // heads), wide * heads != width),
        ("attention_bias", bias, family == "qwen3" and bias),
        ("use_sliding_window", True, bool(config.get("use_sliding_window"))),
        ("quantization_config", "", config.get("quantization_config") is not None),
    ]
    if family == "llama" and (mlp := config.get("mlp_bias", False)) != bias:
        raise RunError(
            f"config.json has attention_bias {bias} and mlp_bias {mlp}, and a model here has both or neither.",
            "it can't be imported.",
        )
    if found := next(((name, said) for name, said, wrong in refused if wrong), None):
        raise RunError(f"config.json has {found[0]} {found[1]}, which no model here has.", "it can't be imported.")
    return ModelSpec(
        vocab_size=config["vocab_size"],
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=0 if (few := config.get("num_key_value_heads") or heads) == heads else few,
        ff_dim=config["intermediate_size"],
        max_seq_len=config["max_position_embeddings"],
        layers=families.layers(LayerSpec(spec.Softmax(), _ACTIVATIONS[act]()), config["num_hidden_layers"]),
        positions=spec.Rope(_base(config)),
        norm=spec.RMSNorm(config.get("rms_norm_eps", 1e-6)),
        qk_norm=family == "qwen3",
        tie_embeddings=config.get("tie_word_embeddings", False),
        bias=bias,
        attention_dropout=config.get("attention_dropout", 0.0),
        init="normal",
    )


def config_of(model: ModelSpec, family: Family) -> dict[str, Any]:
    """The Hugging Face configuration of a model."""
    assert isinstance(model.positions, spec.Rope)
    assert isinstance(model.norm, spec.RMSNorm)
    base, wide = model.positions.base, model.d_head
    if model.positions.stretch != 1:  # the same angles, by a base of their own (positions/rope.py)
        base *= model.positions.stretch ** (wide / (wide - 2))
    kind = type(model.layers[0].feedforward)
    described = {
        "model_type": family,
        "architectures": ["LlamaForCausalLM" if family == "llama" else "Qwen3ForCausalLM"],
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_seq_len,
        "hidden_size": model.embed_dim,
        "intermediate_size": model.ff_dim,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": wide,
        "hidden_act": next(word for word, one in _ACTIVATIONS.items() if one is kind),
        "rms_norm_eps": model.norm.eps,
        # Under both names, for programs of before and after transformers 5.
        "rope_theta": base,
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "attention_bias": model.bias,
        "attention_dropout": model.attention_dropout,
        "tie_word_embeddings": model.tie_embeddings,
    }
    return {**described, "mlp_bias": model.bias} if family == "llama" else {**described, "use_sliding_window": False}


def _base(config: Mapping[str, Any]) -> float:
    """Of the rotary angles, under the old name or the new.

    Raises:
        RunError: they are stretched in a way that is not had here.
    """
    base = config.get("rope_theta", 10000.0)
    for name in ("rope_parameters", "rope_scaling"):
        said = config.get(name) or {}
        kind = said.get("rope_type", said.get("type", "default"))
        if kind != "default":
            raise RunError(
                f"config.json has {name} of the type {kind!r}.", "only rotary positions as they are can be imported."
            )
        base = said.get("rope_theta", base)
    return float(base)

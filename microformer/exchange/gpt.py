"""GPT-1 and GPT-2 as Hugging Face keeps them, and GPT-2 as nanoGPT and minGPT do: names, layouts, configurations.

    tokens_embed | wte, positions_embed | wpe, h.0.attn.c_attn (q, k and v), h.0.attn.c_proj, h.0.mlp.c_fc, …

Hugging Face's matrices lie across (its Conv1D holds [inputs, outputs]); nanoGPT's and minGPT's don't. Hugging Face has
a bias everywhere, which is 0 where a model has none.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from microformer.errors import RunError
from microformer.exchange import families, maps
from microformer.exchange.families import Family
from microformer.exchange.maps import Pair
from microformer.models import spec
from microformer.models.spec import LayerSpec, ModelSpec

# What Hugging Face calls the activations. GPT-1's "gelu" is the tanh form.
_GPT1 = {"gelu": spec.GeluTanh, "gelu_new": spec.GeluTanh, "relu": spec.Relu}
_GPT2 = {
    "gelu_new": spec.GeluTanh, "gelu_pytorch_tanh": spec.GeluTanh, "gelu_fast": spec.GeluTanh, "gelu": spec.Gelu,
    "relu": spec.Relu, "relu2": spec.Relu2,
}  # fmt: skip


def pairs(model: ModelSpec, family: Literal["gpt1", "gpt2"], *, across: bool, biases: bool) -> Iterator[Pair]:
    """The map.

    Args:
        across: whether their matrices are ours transposed.
        biases: whether they always have biases, be it of 0.
    """
    width, middle, bias = model.embed_dim, model.ff_dim, biases or model.bias
    embed, places = ("tokens_embed", "positions_embed") if family == "gpt1" else ("wte", "wpe")
    both = {"bias": bias, "zero": not model.bias}
    yield Pair("embed.weight", (f"transformer.{embed}.weight",), (model.vocab_size,), width)
    yield Pair("positions.table.weight", (f"transformer.{places}.weight",), (model.max_seq_len,), width)
    for i in range(model.num_layers):
        here, there = f"blocks.{i}", f"transformer.h.{i}"
        matrix = {**both, "across": across}
        yield from maps.norm(f"{here}.residual_1.norm", f"{there}.ln_1", width, **both)
        yield from maps.linear(f"{here}.attention.W_QKV", f"{there}.attn.c_attn", 3 * width, width, **matrix)
        yield from maps.linear(f"{here}.attention.W_O", f"{there}.attn.c_proj", width, width, **matrix)
        yield from maps.norm(f"{here}.residual_2.norm", f"{there}.ln_2", width, **both)
        yield from maps.linear(f"{here}.feedforward.W_in", f"{there}.mlp.c_fc", middle, width, **matrix)
        yield from maps.linear(f"{here}.feedforward.W_out", f"{there}.mlp.c_proj", width, middle, **matrix)
    if family == "gpt2":
        yield from maps.norm("norm", "transformer.ln_f", width, **both)
    if not model.tie_embeddings:
        yield Pair("unembed.weight", ("lm_head.weight",), (model.vocab_size,), width)


def model_of(config: Mapping[str, Any], family: Literal["gpt1", "gpt2"]) -> ModelSpec:
    """The model that a Hugging Face configuration describes.

    Raises:
        RunError: it asks for what can't be had here.
    """
    kind = _activation(config, family)
    for name, usual in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if config.get(name, usual) != usual:
            raise RunError(f"config.json has {name} {config[name]}, which no model here has.", "it can't be imported.")
    width = config["n_embd"]
    return ModelSpec(
        vocab_size=config["vocab_size"],
        embed_dim=width,
        num_heads=config["n_head"],
        ff_dim=(config.get("n_inner") if family == "gpt2" else None) or 4 * width,
        max_seq_len=config["n_positions"],
        layers=families.layers(LayerSpec(spec.Softmax(), kind()), config["n_layer"]),
        positions=spec.Learned(),
        norm=spec.LayerNorm(config.get("layer_norm_epsilon", 1e-5)),
        norm_placement="post" if family == "gpt1" else "pre",
        tie_embeddings=config.get("tie_word_embeddings", True),
        bias=True,
        dropout=config.get("resid_pdrop", 0.1),
        attention_dropout=config.get("attn_pdrop", 0.1),
        init="normal" if family == "gpt1" else "scaled",
    )


def config_of(model: ModelSpec, family: Family) -> dict[str, Any]:
    """The Hugging Face configuration of a model."""
    words, name = (_GPT1, "afn") if family == "gpt1" else (_GPT2, "activation_function")
    kind = type(model.layers[0].feedforward)
    described = {
        "model_type": "openai-gpt" if family == "gpt1" else "gpt2",
        "architectures": ["OpenAIGPTLMHeadModel" if family == "gpt1" else "GPT2LMHeadModel"],
        "vocab_size": model.vocab_size,
        "n_positions": model.max_seq_len,
        "n_embd": model.embed_dim,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        name: next(word for word, one in words.items() if one is kind),
        "layer_norm_epsilon": model.norm.eps if isinstance(model.norm, spec.LayerNorm) else 1e-5,
        "embd_pdrop": model.dropout,
        "resid_pdrop": model.dropout,
        "attn_pdrop": model.attention_dropout,
        "tie_word_embeddings": model.tie_embeddings,
    }
    return described if family == "gpt1" else {**described, "n_inner": model.ff_dim}


def _activation(config: Mapping[str, Any], family: Literal["gpt1", "gpt2"]) -> Any:
    words, name = (_GPT1, "afn") if family == "gpt1" else (_GPT2, "activation_function")
    said = config.get(name, "gelu" if family == "gpt1" else "gelu_new")
    if said not in words:
        raise RunError(f"config.json has {name} {said!r}, which can't be had here.", f"known are: {', '.join(words)}.")
    return words[said]

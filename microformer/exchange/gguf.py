"""A model as one GGUF file, which llama.cpp runs: the same logits, the same ids of a text, the same text of ids.

    model.layers.0.self_attn.q_proj   blk.0.attn_q        Hugging Face's names (llama.py, gpt.py), and llama.cpp's
    rows 0 1 2 3 4 5 of a head        0 3 1 4 2 5         Llama's queries and keys: it turns neighbours, and we halves

llama.cpp stops at one token, the end of a text. Where documents have none it must be one that no text has: an id that
is over, or the byte 0xFF. Where there is no such, for every id is a character, its RWKV vocabulary does without; there
it refuses characters that it lacks, or runs out of memory over them, and in the others it leaves them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from microformer.errors import FileError, SettingsError
from microformer.exchange import families, gpt, llama, maps
from microformer.exchange.families import Family
from microformer.models import grammar
from microformer.models.spec import FEEDFORWARD, GeluTanh, ModelSpec, Swiglu
from microformer.tokenization import Tokenizer
from microformer.tokenization.byte import shown_bytes
from microformer.tokenization.documents import END

_NAMES = {
    "model.layers": "blk", "transformer.h": "blk", "model.embed_tokens": "token_embd", "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd", "model.norm": "output_norm", "transformer.ln_f": "output_norm",
    "lm_head": "output", "input_layernorm": "attn_norm", "ln_1": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "ln_2": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.o_proj": "attn_output",
    "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
# gguf.TokenType's.
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5
# What bytes look like in a byte-level vocabulary.
_SHOWN = shown_bytes()
_NEVER = _SHOWN[0xFF]  # a byte that UTF-8 has not


def write(path: Path, spec: ModelSpec, parameters: Mapping[str, Tensor], tokenizer: Tokenizer, name: str) -> None:
    """Writes a model, in float32.

    Args:
        path: where to; what is there is replaced.
        spec: what the model is.
        parameters: its weights, by our names.
        tokenizer: text to its ids.
        name: what llama.cpp shows it as.

    Raises:
        SettingsError: llama.cpp has no such model or no such tokenizer, or the package is missing.
    """
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise SettingsError("exporting to GGUF takes the package gguf.", 'pip install "microformer[gguf]"') from error
    family = _family(spec)
    vocabulary = _vocabulary(tokenizer, spec.vocab_size)
    tensors = _tensors(spec, family, parameters)
    writer = GGUFWriter(path, family)
    # By its name llama.cpp takes such a model for Microsoft's, and fails for want of its tokens.
    if not any(word in name.lower() for word in ("phi3", "phi-3")):
        writer.add_name(name)
    writer.add_file_type(0)  # float32 throughout
    writer.add_vocab_size(spec.vocab_size)
    writer.add_context_length(spec.max_seq_len)
    writer.add_embedding_length(spec.embed_dim)
    writer.add_block_count(spec.num_layers)
    writer.add_feed_forward_length(spec.ff_dim)
    writer.add_head_count(spec.num_heads)
    writer.add_head_count_kv(spec.kv_heads)
    if family == "gpt2":
        writer.add_layer_norm_eps(gpt.config_of(spec, family)["layer_norm_epsilon"])
    else:
        config = llama.config_of(spec, family)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(spec.d_head)
        writer.add_rope_freq_base(config["rope_theta"])
    vocabulary.describe(writer)
    for label, tensor in tensors.items():
        writer.add_tensor(label, tensor.numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:
        if error.errno is not None:
            raise
        raise FileError(f"can't write {path}: {error}.", "free some space on that disk.") from error
    finally:
        writer.close()


def _family(spec: ModelSpec) -> Family:
    """Which of llama.cpp's models it is.

    Raises:
        SettingsError: none.
    """
    family = families.of(spec)
    if family == "gpt1":
        raise _refused("NORM_PLACEMENT", spec.norm_placement, "pre")
    kind = spec.layers[0].feedforward
    wanted, word = (GeluTanh, "gelu_tanh") if family == "gpt2" else (Swiglu, "swiglu")
    if not isinstance(kind, wanted):
        raise _refused("FEEDFORWARD", grammar.written([kind], FEEDFORWARD), word)
    return family


def _refused(setting: str, said: str, instead: str) -> SettingsError:
    return SettingsError(
        f"{setting} {said} is in no model like this one that llama.cpp runs.",
        f"train with {setting} = '{instead}'; --to huggingface and --to safetensors take this model.",
    )


def _tensors(spec: ModelSpec, family: Family, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by llama.cpp's names."""
    pairs = gpt.pairs(spec, "gpt2", across=False, biases=True) if family == "gpt2" else llama.pairs(spec)
    plain = {name: parameter.detach().cpu().float() for name, parameter in parameters.items()}
    given = {}
    for name, tensor in maps.theirs(pairs, plain).items():
        if family == "llama" and (".q_proj." in name or ".k_proj." in name):
            tensor = tensor.unflatten(0, (-1, 2, spec.d_head // 2)).transpose(1, 2).flatten(0, 2).contiguous()
        for word, instead in _NAMES.items():
            name = name.replace(word, instead)
        given[name] = tensor
    return given


@dataclass(frozen=True)
class _Vocabulary:
    """What llama.cpp is told of a tokenizer.

    Args:
        tokens: how each id is written; None for one that is over.
        merges: which pairs become one token, first to last.
        end: the id that ends a text; None for none, and then the tokens are written as RWKV's.
    """

    tokens: list[str | None]
    merges: list[str]
    end: int | None

    def describe(self, writer: Any) -> None:
        """Adds it to what a GGUFWriter is to write."""
        writer.add_tokenizer_model("rwkv" if self.end is None else "gpt2")
        writer.add_token_list([f"<|unused{i}|>" if token is None else token for i, token in enumerate(self.tokens)])
        writer.add_token_types([_type(token) for token in self.tokens])
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(False)
        if self.end is not None:
            # GPT-2's way to cut a text, by the name of another model that cuts alike: under "gpt-2" llama.cpp leaves
            # out spaces before punctuation where it turns ids into text.
            writer.add_tokenizer_pre("trillion")
            # There must be some, be it of what never comes.
            writer.add_token_merges(self.merges or [f"{_NEVER} {_NEVER}"])
            # Unsaid, both were token 11.
            writer.add_bos_token_id(self.end)
            writer.add_eos_token_id(self.end)


def _type(token: str | None) -> int:
    # A control token is looked for in texts as it is written here; one for the byte 0xFF would be found in "ÿ".
    return _UNUSED if token is None else _CONTROL if token == END else _NORMAL


def _vocabulary(tokenizer: Tokenizer, size: int) -> _Vocabulary:
    """What llama.cpp is told of a tokenizer.

    Args:
        tokenizer: text to the model's ids.
        size: how many ids the model has.

    Raises:
        SettingsError: llama.cpp has no such tokenizer.
    """
    if tokenizer.vocab_size != size:
        raise SettingsError(
            f"the tokenizer has {tokenizer.vocab_size} ids, and the model {size}.", "they don't belong together."
        )
    ids, merges = _byte_level(tokenizer)
    tokens: list[str | None] = [None] * size
    for token, i in ids.items():
        tokens[i] = token
    end = tokenizer.end_of_document
    if end is None:
        end = next((i for i, token in enumerate(tokens) if token in (None, _NEVER)), None)
    elif tokens[end] is None:
        tokens[end] = END
    if end is None:
        return _Vocabulary([_escaped(character) for character in tokenizer.to_dict()["vocab"]], [], None)
    return _Vocabulary(tokens, merges, end)


def _byte_level(tokenizer: Tokenizer) -> tuple[dict[str, int], list[str]]:
    """The tokens' ids and the merges of the byte-level BPE that does what a tokenizer does.

    Raises:
        SettingsError: none does.
    """
    said = tokenizer.to_dict()
    match tokenizer.kind:
        case "char":
            ids = {"".join(_SHOWN[byte] for byte in character.encode()): i for character, i in said["vocab"].items()}
            # A character's bytes are joined from the first on; what begins in the midst of one begins no merge.
            joined = [f"{token[:i]} {token[i]}" for token in ids for i in range(1, len(token))]
            return ids, list(dict.fromkeys(joined))
        case "byte":
            return {shown: byte for byte, shown in enumerate(_SHOWN)}, []
        case "bpe" if _is_gpt2s(said["tokenizer"]):
            model = said["tokenizer"]["model"]
            added = {one["content"]: one["id"] for one in said["tokenizer"]["added_tokens"]}
            return model["vocab"] | added, [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
        case kind:
            which = "a BPE that cuts texts in another way than GPT-2's" if kind == "bpe" else f"of the kind {kind}"
            raise SettingsError(
                f"the tokenizer is {which}, which llama.cpp doesn't run.", "train with TOKENIZER char, byte or bpe."
            )


def _is_gpt2s(tokenizer: dict[str, Any]) -> bool:
    """Whether a byte-level BPE cuts a text, and joins what it cut, as GPT-2's does."""
    cuts, model = tokenizer["pre_tokenizer"] or {}, tokenizer["model"]
    return (
        tokenizer["normalizer"] is None
        and (cuts.get("type"), cuts.get("add_prefix_space"), cuts.get("use_regex", True)) == ("ByteLevel", False, True)
        and not model.get("ignore_merges")
        and not model.get("dropout")
        and {one["content"] for one in tokenizer["added_tokens"]} <= {END}
        and _NEVER in model["vocab"]
    )


def _escaped(character: str) -> str:
    """A character as RWKV's vocabulary has it."""
    if character.isprintable() and character != "\\":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())

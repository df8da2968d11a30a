"""Hugging Face's folders: config.json, weights as safetensors, tokenizer.json; GPT-1, GPT-2, Llama and Qwen3.

    config.json             what the model is
    model.safetensors       its weights (or shards, or PyTorch's older pytorch_model.bin)
    tokenizer.json          text to ids, as the library `tokenizers` runs it (or vocab.json and merges.txt)
    tokenizer_config.json   what transformers' AutoTokenizer asks besides

What this program makes loads with AutoModelForCausalLM and AutoTokenizer, without code of its own.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microformer import files, runs, settings, tokenization
from microformer.errors import RunError, notice
from microformer.exchange import families, gpt, llama, maps, weights
from microformer.exchange.families import Family
from microformer.exchange.foreign import Foreign
from microformer.exchange.maps import Pair
from microformer.models.spec import ModelSpec
from microformer.tokenization import Tokenizer

_MODEL_TYPES: dict[str, Family] = {"openai-gpt": "gpt1", "gpt2": "gpt2", "llama": "llama", "qwen3": "qwen3"}
# Tensors that are no weights: masks and angles, which older files kept.
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def is_folder(path: Path) -> bool:
    """Whether it is such a folder, of whatever kind of model."""
    return (path / "config.json").is_file() and "model_type" in _config(path)


def read(folder: Path, tokenizer: Tokenizer | None = None) -> Foreign:
    """The model in a folder.

    Args:
        tokenizer: in the place of the folder's own.

    Raises:
        RunError: a model that can't be had here, or weights that don't fit it.
        DataError: a tokenizer that can't be read.
    """
    config = _config(folder)
    family = _MODEL_TYPES.get(str(config.get("model_type")))
    if family is None:
        raise RunError(
            f"{folder} holds a model of the type {config.get('model_type')!r}, which can't be had here.",
            f"what can be: {', '.join(_MODEL_TYPES)}.",
        )
    try:
        model = gpt.model_of(config, family) if family in ("gpt1", "gpt2") else llama.model_of(config, family)
    except (KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{folder / 'config.json'} describes no {family}: {what}.", "restore it.") from error
    found = {_named(name, family): tensor for name, tensor in weights.read(folder).items()}
    found = {name: tensor for name, tensor in found.items() if not name.endswith(_BUFFERS)}
    parameters = maps.ours(pairs(model, family), _untied(found, model, family, folder), str(folder))
    precisions = sorted({str(one.dtype).removeprefix("torch.") for one in found.values()} - {"float32"})
    if precisions:
        notice(f"the weights are in {' and '.join(precisions)}; they are kept in float32 here.")
    return Foreign(
        format=f"Hugging Face {config['model_type']}",
        spec=model,
        parameters=parameters,
        tokenizer=tokenizer or tokenization.load_published(folder),
        settings=settings.read_config("llama" if family == "qwen3" else family),
    )


def write(folder: Path, model: ModelSpec, parameters: Mapping[str, Tensor], tokenizer: Tokenizer) -> None:
    """Writes a model as such a folder, which is there and empty.

    Raises:
        SettingsError: none of these kinds has one of its components.
        FileError: it can't be written.
    """
    family = families.of(model)
    # No ids but those that this tokenizer has: the classes' own defaults are their first vocabulary's.
    end = tokenizer.end_of_document
    begin = tokenizer.beginning[0] if tokenizer.beginning else end
    ends = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": None}
    config = gpt.config_of(model, family) if family in ("gpt1", "gpt2") else llama.config_of(model, family)
    files.write_json(folder / "config.json", {**config, **ends, "dtype": "float32"})
    files.write_json(folder / "generation_config.json", ends)
    tensors = maps.theirs(pairs(model, family), parameters)
    runs.save_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
    library = tokenizer.to_library()
    files.write_text(folder / "tokenizer.json", library.to_str(pretty=True))
    about: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.max_seq_len}
    about["clean_up_tokenization_spaces"] = False
    for name, token_id in (("bos_token", begin), ("eos_token", end)):
        about[name] = None if token_id is None else library.id_to_token(token_id)
    if unknown := json.loads(library.to_str())["model"].get("unk_token"):
        about["unk_token"] = unknown
    files.write_json(folder / "tokenizer_config.json", about)


def pairs(model: ModelSpec, family: Family) -> Iterator[Pair]:
    """The map of a kind of model."""
    if family in ("gpt1", "gpt2"):
        return gpt.pairs(model, family, across=True, biases=True)
    return llama.pairs(model)


def _config(folder: Path) -> dict[str, Any]:
    config = files.read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise RunError(f"{folder / 'config.json'} is no configuration: it is no table.", "restore it.")
    return config


def _named(name: str, family: Family) -> str:
    """A tensor's name with the prefix that some files leave away."""
    prefix = "transformer." if family in ("gpt1", "gpt2") else "model."
    return name if name.startswith((prefix, "lm_head.")) else prefix + name


def _untied(found: dict[str, Tensor], model: ModelSpec, family: Family, folder: Path) -> dict[str, Tensor]:
    """The tensors without a second copy of a matrix that embedding and unembedding share."""
    head = found.get("lm_head.weight")
    if head is None or not model.tie_embeddings:
        return found
    embed = next(pair for pair in pairs(model, family) if pair.ours == "embed.weight").theirs[0]
    if embed in found and not torch.equal(head, found[embed]):
        raise RunError(
            f"{folder} says that embedding and unembedding are one matrix, and has two that differ.",
            "if they are two, set tie_word_embeddings to false in its config.json.",
        )
    return {name: tensor for name, tensor in found.items() if name != "lm_head.weight"}

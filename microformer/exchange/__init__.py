"""To and from other people's formats. Knows their files, names and layouts; makes no runs.

families        which published kind of model one is
maps            whose weight is whose, for every format
gpt, llama      the kinds' names, layouts and configurations
huggingface     folders
nanogpt, mingpt checkpoints
own             one file of this program's own
gguf, onnx      files for llama.cpp and onnxruntime
weights         reading files that others wrote, so that nothing in them runs
"""

import re
from dataclasses import replace
from pathlib import Path

from microformer.errors import RunError, SettingsError, notice
from microformer.exchange import hub, huggingface, mingpt, nanogpt, own, vocabularies, weights
from microformer.exchange.foreign import Foreign
from microformer.tokenization import Padded, Tokenizer

__all__ = ["Foreign", "read"]

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")


def read(path: str, tokenizer: Path | None = None, heads: int | None = None) -> Foreign:
    """A model that another program made.

    Args:
        path: a Hugging Face folder; nanoGPT's ckpt.pt or minGPT's model.pt, or the folder it is in; a file that
            `export --to safetensors` wrote; or a model on the hub, `owner/name` or `hf:owner/name`.
        tokenizer: what its vocabulary is read from, where it is not its own (vocabularies.py).
        heads: attention heads a layer, for a minGPT model that does not say them.

    Raises:
        RunError: it is none of these, can't be had here, or its parts don't fit.
        DataError: a tokenizer that can't be read.
    """
    try:
        found = _read(path, vocabularies.read(tokenizer) if tokenizer else None, heads)
    except SettingsError as error:  # told in our words; theirs are in the file
        raise RunError(f"{path or 'an empty name'} can't be had here: {error.sentence}", error.hint) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is damaged: it holds what a model's file does not ({type(error).__name__}: {error}).",
            "get it again; --debug shows where it was found.",
        ) from error
    if heads is not None and found.format != mingpt.FORMAT:
        raise RunError(f"{path} says its {found.spec.num_heads} heads itself.", "leave --num-heads out.")
    there, wanted = found.tokenizer.vocab_size, found.spec.vocab_size
    if there > wanted or 2 * there < wanted:
        raise RunError(
            f"the tokenizer has {there:,} tokens, and the model knows {wanted:,}.",
            "it is another model's; name the right one: --tokenizer PATH.",
        )
    if there < wanted:
        notice(
            f"the vocabulary was padded, or is another model's: {wanted - there:,} of the model's {wanted:,} tokens "
            "stand for nothing. --tokenizer PATH names another."
        )
        return replace(found, tokenizer=Padded(found.tokenizer, wanted))
    return found


def _read(name: str, tokenizer: Tokenizer | None, heads: int | None) -> Foreign:
    path = Path(name)
    if not name or not path.exists():
        if match := re.fullmatch(r"hf:([\w.-]+(?:/[\w.-]+)?)|([\w-][\w.-]*/[\w.-]+)", name):
            return huggingface.read(hub.fetched(match[1] or match[2]), tokenizer)
        raise RunError(
            f"there is no {name or 'model without a name'}.",
            "give a folder or a file, or a model on the hub as owner/name or hf:name.",
        )
    if path.is_dir():
        if huggingface.is_folder(path):
            return huggingface.read(path, tokenizer)
        path = next((path / one for one in ("ckpt.pt", "model.pt") if (path / one).is_file()), path)
    if path.suffix == ".safetensors" and path.is_file():
        return own.read(path, tokenizer)
    if path.suffix in _PICKLES and path.is_file():
        found = weights.unpickled(path)
        if nanogpt.is_checkpoint(found):
            return nanogpt.read(path, found, tokenizer)
        if mingpt.is_state_dict(found):
            return mingpt.read(path, found, tokenizer, heads)
    raise RunError(
        f"{name} is no model that can be read.",
        "what can be: a Hugging Face folder (config.json and weights), nanoGPT's ckpt.pt, minGPT's model.pt, "
        "or what `microformer export --to safetensors` wrote.",
    )

"""Vocabularies that others published, or that Hugging Face's programs wrote: a folder or a file, read as it is.

    vocab.json + merges.txt           GPT-2's bytes, GPT-1's characters with </w>
    encoder.json + vocab.bpe          the same as OpenAI published them for GPT-2
    tokenizer.json                    Hugging Face's one file: GPT-2's and GPT-1's, every kind of ours, and any other
    a file that `save` wrote          any kind

Knows which kind a file is of; what that kind does is the kind's. Nothing is fetched.
"""

from pathlib import Path
from typing import Any

from microformer import files
from microformer.errors import DataError
from microformer.tokenization.base import Tokenizer
from microformer.tokenization.documents import END, WithEnd

_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def load_published(path: Path) -> Tokenizer:
    """The tokenizer in a folder or file.

    Raises:
        DataError: there is none, or it is of a kind that can't be run here.
        FileError: a file can't be read.
    """
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return load_published(path / "tokenizer.json")
        for vocab, merges in _PAIRS:
            if (path / vocab).is_file() and (path / merges).is_file():
                return _of_pairs(files.read_json(path / vocab), _merges(path / merges), path / vocab)
        hint = "one has tokenizer.json, or vocab.json and merges.txt."
        if (path / "tokenizer.model").is_file():
            hint = "its tokenizer.model is made a tokenizer.json by transformers' AutoTokenizer and save_pretrained."
        raise DataError(f"{path} holds no tokenizer that can be read here.", hint)
    if not path.is_file():
        raise DataError(f"there is no tokenizer {path}.", "give a folder or a file, or a kind such as bpe.")
    data = files.read_json(path)
    if is_own(path):
        from microformer import tokenization

        return tokenization.load(path)
    return _of_library(data, path)


def is_own(path: Path) -> bool:
    """Whether it is a file that `save` wrote."""
    data = files.read_json(path) if path.is_file() else None
    return isinstance(data, dict) and "kind" in data


def _of_library(data: Any, path: Path) -> Tokenizer:
    from microformer.tokenization.huggingface import HuggingFaceTokenizer

    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict):
        raise DataError(f"{path} holds no tokenizer.", "it has neither a kind of this program's nor a model.")
    try:
        if (ours := _of_ours(data, model, path)) is not None:
            return ours
        other = HuggingFaceTokenizer.from_dict({"tokenizer": data})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is no tokenizer: {error!r}.", "it was cut short, or edited by hand.") from error
    except DataError as error:
        raise DataError(f"{path}: {error.sentence}", error.hint) from error
    end = _end_of_text(path.parent, data)
    return other if end is None else WithEnd(other, end)


def _of_ours(data: dict[str, Any], model: dict[str, Any], path: Path) -> Tokenizer | None:
    """The tokenizer of a kind that is here, which cuts a text before it encodes it; None for another's."""
    from microformer.tokenization.bpe import BpeTokenizer
    from microformer.tokenization.byte import ByteTokenizer, shown_bytes
    from microformer.tokenization.char import LIBRARY_SPLIT, CharTokenizer
    from microformer.tokenization.pieces import PRE_TOKENIZER
    from microformer.tokenization.unigram import UnigramTokenizer
    from microformer.tokenization.wordpiece import WordPieceTokenizer

    before, added = data.get("pre_tokenizer") or {}, data.get("added_tokens") or []
    if model.get("end_of_word_suffix") == "</w>":
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return _of_pairs(model["vocab"], [(first, second) for first, second in merges], path)
    found: Tokenizer | None = None
    match model.get("type"):
        case "WordLevel" if before == LIBRARY_SPLIT:
            vocab = model["vocab"]
            found = CharTokenizer("".join(sorted(vocab, key=vocab.__getitem__)))
        case "BPE" if before.get("type") == "ByteLevel" and not model["merges"]:
            found = ByteTokenizer() if list(model["vocab"]) == shown_bytes() else None
        case "BPE" if before.get("type") == "ByteLevel" and not before["add_prefix_space"] and before["use_regex"]:
            return BpeTokenizer.from_dict({"tokenizer": data})
        case "WordPiece" if before == PRE_TOKENIZER:
            found = WordPieceTokenizer.from_dict({"tokenizer": {**data, "added_tokens": []}})
        case "Unigram" if before == PRE_TOKENIZER:
            found = UnigramTokenizer.from_dict({"tokenizer": {**data, "added_tokens": []}})
    if found is None or not added:
        return found
    return WithEnd(found, added[0]["id"]) if [one["content"] for one in added] == [END] else None


def _end_of_text(folder: Path, data: dict[str, Any]) -> int | None:
    """The id that ends a text, where a folder's files say so."""
    ids = {one["content"]: one["id"] for one in data.get("added_tokens") or []}
    for name, key in (("tokenizer_config.json", "eos_token"), ("config.json", "eos_token_id")):
        said = files.read_json(folder / name) if (folder / name).is_file() else {}
        token = said.get(key) if isinstance(said, dict) else None
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids.values():
            return token
        if isinstance(token, str) and token in ids:
            return ids[token]
    return None


def _of_pairs(vocab: Any, merges: list[tuple[str, str]], path: Path) -> Tokenizer:
    import tokenizers
    from tokenizers import models

    from microformer.tokenization.bpe import BpeTokenizer, byte_level
    from microformer.tokenization.gpt1 import END as END_OF_WORD
    from microformer.tokenization.gpt1 import GPT1Tokenizer

    if not isinstance(vocab, dict) or not all(isinstance(one, int) for one in vocab.values()):
        raise DataError(f"{path} is no vocabulary: it gives tokens no ids.", "it was cut short, or is another file.")
    try:
        if any(token.endswith(END_OF_WORD) for token in vocab):
            return GPT1Tokenizer(vocab, merges)
        try:
            made = byte_level(models.BPE(vocab, merges))
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"its merges don't fit its vocabulary: {error}.") from error
        if END in vocab:
            made.add_special_tokens([tokenizers.AddedToken(END, normalized=False, special=True)])
        return BpeTokenizer(made)
    except DataError as error:
        raise DataError(f"{path}: {error.sentence}", error.hint) from error


def _merges(path: Path) -> list[tuple[str, str]]:
    lines = files.read_text(path).split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    found = [line.split(" ") for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in found):
        wrong = next(pair for pair in found if len(pair) != 2)
        raise DataError(f"{path} has a line {' '.join(wrong)[:40]!r} that is no pair.", "it is another kind of file.")
    return [(first, second) for first, second in found]

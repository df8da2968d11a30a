"""Vocabularies that others published, or that Hugging Face's programs wrote: a folder or a file, read as it is.

    vocab.json + merges.txt           GPT-2's bytes, GPT-1's characters with </w>
    encoder.json + vocab.bpe          the same as OpenAI published them for GPT-2
    tokenizer.json                    Hugging Face's one file: byte-level BPE, GPT-1's, WordPiece and Unigram of ours
    a file that `save` wrote          any kind

Knows which kind a file is of; what that kind does is the kind's. Nothing is fetched.
"""

from pathlib import Path
from typing import Any

from microformer import files
from microformer.errors import DataError
from microformer.tokenization.base import Tokenizer

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
        raise DataError(
            f"{path} holds no tokenizer.",
            "one has tokenizer.json, or vocab.json and merges.txt.",
        )
    if not path.is_file():
        raise DataError(f"there is no tokenizer {path}.", "give a folder or a file, or a kind such as bpe.")
    data = files.read_json(path)
    if isinstance(data, dict) and "kind" in data:
        from microformer import tokenization

        return tokenization.load(path)
    return _of_library(data, path)


def _of_library(data: Any, path: Path) -> Tokenizer:
    from microformer.tokenization.bpe import BpeTokenizer
    from microformer.tokenization.unigram import UnigramTokenizer
    from microformer.tokenization.wordpiece import WordPieceTokenizer

    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict):
        raise DataError(f"{path} holds no tokenizer.", "it has neither a kind of this program's nor a model.")
    kind, suffix = str(model.get("type")), model.get("end_of_word_suffix")
    try:
        match kind:
            case "BPE" if suffix == "</w>":
                merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
                return _of_pairs(model["vocab"], [(first, second) for first, second in merges], path)
            case "BPE":
                return BpeTokenizer.from_dict({"tokenizer": data})
            case "WordPiece":
                return WordPieceTokenizer.from_dict({"tokenizer": data})
            case "Unigram":
                return UnigramTokenizer.from_dict({"tokenizer": data})
    except DataError as error:
        raise DataError(f"{path}: {error.sentence}", error.hint) from error
    raise DataError(f"{path} is of a kind {kind!r} that can't be run here.", "BPE, WordPiece and Unigram can.")


def _of_pairs(vocab: Any, merges: list[tuple[str, str]], path: Path) -> Tokenizer:
    import tokenizers
    from tokenizers import models

    from microformer.tokenization.bpe import END as END_OF_TEXT
    from microformer.tokenization.bpe import BpeTokenizer, byte_level
    from microformer.tokenization.gpt1 import END, GPT1Tokenizer

    if not isinstance(vocab, dict) or not all(isinstance(one, int) for one in vocab.values()):
        raise DataError(f"{path} is no vocabulary: it gives tokens no ids.", "it was cut short, or is another file.")
    try:
        if any(token.endswith(END) for token in vocab):
            return GPT1Tokenizer(vocab, merges)
        try:
            made = byte_level(models.BPE(vocab, merges))
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"its merges don't fit its vocabulary: {error}.") from error
        if END_OF_TEXT in vocab:
            made.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, normalized=False, special=True)])
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

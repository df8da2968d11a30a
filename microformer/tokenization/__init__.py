"""Text to ids and back: by character, by byte, or by pieces that are frequent in a text. No torch.

A tokenizer is trained on text, or loaded from the JSON that `save` writes: `vocab.json` of prepared data and
`tokenizer.json` of a run are such files.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from microformer import files
from microformer.errors import DataError, SettingsError, nearest
from microformer.tokenization.base import StreamDecoder, Tokenizer, Unknown
from microformer.tokenization.documents import WithEnd
from microformer.tokenization.padding import Padded
from microformer.tokenization.published import is_own, load_published

__all__ = [
    "KINDS", "LEARNED", "Padded", "StreamDecoder", "Tokenizer", "Unknown", "WithEnd", "from_dict", "load",
    "load_published", "save", "train",
]  # fmt: skip

KINDS = ("char", "byte", "bpe", "wordpiece", "unigram")
# Those whose vocabulary is learned, to a size.
LEARNED = ("bpe", "wordpiece", "unigram")
# Those that others trained.
_PUBLISHED = ("gpt1", "huggingface")


def train(
    kind: str, chunks: Iterable[str], vocab_size: int | None = None, alphabet: str = "", documents: bool = False
) -> Tokenizer:
    """A tokenizer for a text.

    Args:
        kind: one of KINDS; or the path of a tokenizer that is there already (published.py), which learns nothing.
        chunks: consecutive parts of the text. They are read once; by "byte", which needs no text, not at all.
        vocab_size: how many tokens, where the kind is one of LEARNED; None picks a size that suits the text. The
            other kinds have the size that they must have.
        alphabet: characters that it must be able to encode besides those of the text, where it is learned in
            characters ("wordpiece", "unigram").
        documents: whether there is to be a token for the end of a document; vocab_size counts it.

    Raises:
        SettingsError: there is no such kind, or it can't have this size.
        DataError: a text that this kind can't use.
    """
    if kind not in KINDS and files.is_path(kind):
        there = load_published(Path(kind))
        # What this program saved is taken as it is: a model may know it that has no other ids.
        whole = not documents or there.end_of_document is not None or is_own(Path(kind))
        return there if whole else WithEnd(there)
    if documents:
        inner = train(kind, chunks, vocab_size and vocab_size - 1, alphabet)
        return inner if inner.end_of_document is not None else WithEnd(inner)
    return _named(kind).train(chunks, vocab_size, alphabet)


def from_dict(data: Any) -> Tokenizer:
    """The tokenizer whose `to_dict` gave this.

    Raises:
        DataError: it is no tokenizer's.
    """
    if not isinstance(data, dict) or data.get("kind") not in (*KINDS, *_PUBLISHED):
        kind = data.get("kind") if isinstance(data, dict) else None
        raise DataError(f"this is no tokenizer: its kind is {kind!r}, not one of {', '.join(KINDS)}.")
    for around in (Padded, WithEnd):
        if isinstance(data.get(around.key), int):
            return around.from_dict(data)
    return _named(data["kind"]).from_dict(data)


def load(path: Path) -> Tokenizer:
    """Reads what `save` wrote.

    Raises:
        FileError: the file can't be read, or is not JSON.
        DataError: it holds no tokenizer.
    """
    try:
        return from_dict(files.read_json(path))
    except DataError as error:
        raise DataError(f"{path}: {error.sentence}", "restore the file, or make it again.") from error


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Writes a tokenizer as JSON that a person can read.

    Raises:
        FileError: it can't be written.
    """
    files.write_json(path, tokenizer.to_dict())


def _named(kind: str) -> type[Tokenizer]:
    # Imported only when chosen: the library costs start-up time that a character model need not pay.
    match kind:
        case "char":
            from microformer.tokenization.char import CharTokenizer

            return CharTokenizer
        case "byte":
            from microformer.tokenization.byte import ByteTokenizer

            return ByteTokenizer
        case "bpe":
            from microformer.tokenization.bpe import BpeTokenizer

            return BpeTokenizer
        case "wordpiece":
            from microformer.tokenization.wordpiece import WordPieceTokenizer

            return WordPieceTokenizer
        case "unigram":
            from microformer.tokenization.unigram import UnigramTokenizer

            return UnigramTokenizer
        case "gpt1":
            from microformer.tokenization.gpt1 import GPT1Tokenizer

            return GPT1Tokenizer
        case "huggingface":
            from microformer.tokenization.huggingface import HuggingFaceTokenizer

            return HuggingFaceTokenizer
    meant = nearest(kind, KINDS)
    known = f"the kinds are {', '.join(KINDS)}."
    raise SettingsError(f'there is no tokenizer "{kind}".', f'did you mean "{meant}"? {known}' if meant else known)

"""A tokenizer for a model that came without one, from whatever the user has: see `read`."""

from pathlib import Path
from typing import Any

from microformer import files, tokenization
from microformer.errors import DataError, MicroformerError
from microformer.exchange import weights
from microformer.tokenization import Tokenizer


def read(path: Path) -> Tokenizer:
    """The tokenizer that a path is of.

    Args:
        path: a folder or file with a published one (tokenization/published.py); nanoGPT's meta.pkl; or a text, whose
            characters in the order of their code points are the vocabulary, as nanoGPT and minGPT make it.

    Raises:
        DataError: it is none of these.
        RunError: a pickle that asks for something to be called.
    """
    match path.suffix:
        case ".pkl":
            return of_meta(path)
        case ".txt":
            return tokenization.train("char", [files.read_text(path)])
    try:
        return tokenization.load_published(path)
    except MicroformerError as error:
        if path.is_dir() or path.suffix == ".json":
            raise
        raise DataError(
            f"{path} holds no tokenizer.",
            "--tokenizer takes a folder or a .json with a published one, nanoGPT's meta.pkl, or the text (.txt).",
        ) from error


def of_meta(path: Path) -> Tokenizer:
    """The characters of nanoGPT's meta.pkl.

    Raises:
        DataError: it is no such file.
        RunError: it asks for something to be called.
    """
    found = weights.plain(path)
    ids: Any = found.get("stoi") if isinstance(found, dict) else None
    try:
        return tokenization.from_dict({"kind": "char", "vocab": ids})
    except (DataError, TypeError) as error:
        raise DataError(f"{path} holds no characters with their ids.", "nanoGPT's has them as stoi.") from error


def of_folder(folder: Path) -> Tokenizer | None:
    """The tokenizer beside a model, if there is one."""
    if (folder / "meta.pkl").is_file():
        return of_meta(folder / "meta.pkl")
    try:
        return tokenization.load_published(folder)
    except DataError:
        if any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
            raise
        return None

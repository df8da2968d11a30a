"""Prepared data: a folder with the tokens of a text, its vocabulary, and a manifest that vouches for both.

    train.pt           1-D tensor of token ids, in the smallest integer type that holds them
    val.pt, test.pt    likewise; there may be none
    vocab.json         the tokenizer
    manifest.json      where the text came from, how it was encoded, and a hash a file; written last

Opened memory-mapped, and believed only where the manifest's hashes agree. Doesn't know how the set is made.
"""

import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from microformer import files, tokenization
from microformer.corpora.parts import VOCAB
from microformer.corpora.reading import STANDARD_INPUT, Source
from microformer.corpora.splitting import TEST, TRAIN, VAL
from microformer.errors import DataError, MicroformerError
from microformer.files import shown
from microformer.tokenization import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"
# Larger files are hashed only if their time of writing is not the manifest's.
_ALWAYS_HASHED = 64_000_000
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Prepared:
    """A text as tokens, ready to be trained on.

    Args:
        folder: where it lies.
        manifest: what is known of it, as JSON can hold it.
        tokenizer: turns text into its ids and back.
        train: ids of the training part, memory-mapped. [train]
        val: ids of the validation part, memory-mapped, or None. [val]
        test: ids of the test part, memory-mapped, or None: of most corpora. [test]
    """

    folder: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    train: Integer[Tensor, "train"]
    val: Integer[Tensor, "val"] | None
    test: Integer[Tensor, "test"] | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same text, tokenizer and split, wherever and whenever it was prepared."""
        return self.manifest["fingerprint"]

    @property
    def corpus(self) -> str:
        """What was read, in words: a corpus's name or the files."""
        return source_in_words(self.manifest, self.folder)

    @property
    def example(self) -> int:
        """Tokens an example, where the text is a task's; 1 for other texts."""
        return self._task["example"] if self._task else 1

    def counted(self, ids: Integer[Tensor, "token"]) -> Bool[Tensor, "token"] | None:
        """For each token of a split whether it is to be learned and scored: a task's answers; None for all."""
        if not self._task:
            return None
        return torch.arange(len(ids)) % self.example >= self.example - self._task["answer"]

    @property
    def entropy(self) -> float | None:
        """The least mean loss that there can be on a task's answers, in nats a token; None where it is not known."""
        return self._task.get("entropy") if self._task else None

    @property
    def _task(self) -> dict[str, Any] | None:
        return self.manifest.get("task")  # sets made before there were tasks say nothing

    def summary(self) -> str:
        """What a user wants to know of a preparation: size, vocabulary, split, seconds and MB/s, and how much of the
        validation part is in the training part too. Four lines; three where nothing is held out."""
        text, train, settings = (self.manifest[key] for key in ("text", "train", "settings"))
        seconds = self.manifest["seconds"]
        left_alone = settings["tokenizer"] in tokenization.LEARNED and not settings["vocab_size"]
        chosen = ", a size chosen to suit the text" if left_alone else ""
        parts = " · ".join(
            f"{word} {part['characters']:,} characters"
            + (f" in {part['tokens']:,} tokens" if part["tokens"] != part["characters"] else "")
            for word, part in (
                ("train", train),
                ("validation", self.manifest["val"]),
                ("test", self.manifest.get("test")),
            )
            if part is not None
        )
        if self.val is None:
            parts += ", no validation"
        documents = f" in {text['documents']:,} documents" if text.get("documents") else ""
        seen = ""
        if found := self.manifest.get("shared"):
            what = "characters" if self.tokenizer.kind == "char" else "tokens"
            share = found["shared"] / max(1, found["looked_at"])
            seen = f"\nof validation's stretches of {found['length']} {what} {share:.2%} are in the training part too"
        return (
            f"{self.corpus}: {text['characters']:,} characters{documents}, {text['bytes'] / 1e6:,.2f} MB\n"
            f"vocabulary {self.tokenizer.vocab_size:,} ({self.tokenizer.kind}{chosen}) · {parts}\n"
            f"{seconds:.2f} s, {text['bytes'] / 1e6 / seconds:.1f} MB/s → {shown(self.folder)}{seen}"
        )


def load_prepared(folder: str | Path) -> Prepared:
    """Opens prepared data memory-mapped: nothing is read before it is used, apart from what it takes to trust it.

    Nothing is unpickled but plain tensors. Files below 64 MB are hashed, larger ones if they were written anew.

    Raises:
        DataError: there is none, or a part of it is missing, damaged, dangerous or from another preparation.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(f"there is no complete prepared data in {shown(folder)}.", "make it: microformer prepare.")
    again = f"prepare it again: {_command(manifest, folder)}."
    vocab = folder / VOCAB
    if not vocab.exists():
        raise DataError(f"{shown(vocab)} is missing.", again)
    if files.sha256(vocab) != manifest["files"][VOCAB]["sha256"]:
        raise DataError(f"{shown(vocab)} is not the vocabulary that {TRAIN} was made with.", again)
    tokenizer = tokenization.load(vocab)
    train = _tensor(folder / TRAIN, manifest, tokenizer, again)
    # Sets of earlier versions say nothing of a test part.
    val, test = (
        _tensor(folder / name, manifest, tokenizer, again) if manifest.get(key) is not None else None
        for name, key in ((VAL, "val"), (TEST, "test"))
    )
    return Prepared(folder, manifest, tokenizer, train, val, test)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete set; None if there is none, or it is damaged, or of another version."""
    try:
        manifest = files.read_json(folder / MANIFEST)
    except MicroformerError:
        return None
    complete = isinstance(manifest, dict) and manifest.get("format") == FORMAT and "fingerprint" in manifest
    return manifest if complete else None


def copied(folder: Path, target: Path) -> None:
    """Puts a complete set into another folder, which must not be there yet. Takes no room where both are on one disk:
    the tensors are linked, for nobody ever writes into one.

    Raises:
        FileError: it can't be written.
    """
    manifest = read_manifest(folder)
    assert manifest is not None
    with files.atomic_folder(target) as partial:
        for name in manifest["files"]:
            try:
                os.link(folder / name, partial / name)
            except OSError:  # another disk, or one that knows no links
                shutil.copy2(folder / name, partial / name)
        source = Source.from_dict(manifest["source"], folder).to_dict(target)
        files.write_json(partial / MANIFEST, {**manifest, "source": source})


def source_in_words(manifest: dict[str, Any], folder: Path) -> str:
    """What a set was made from, as a user would call it."""
    return manifest["corpus"] or str(Source.from_dict(manifest["source"], folder))


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """torch's name for a tokenizer's type of ids."""
    return {"uint8": torch.uint8, "int16": torch.int16, "int32": torch.int32}[dtype.name]


def _command(manifest: dict[str, Any], folder: Path) -> str:
    source = Source.from_dict(manifest["source"], folder)
    command = "microformer prepare"
    if source.explicit and source.corpus:
        command += f" --corpus {source.corpus}"
    elif source.explicit:
        spelt = (path if path == STANDARD_INPUT else shown(path) for path in source.inputs)
        command += f" --input {' '.join(_quoted(path) for path in spelt)}"
    for name in ("encoding", "text_field", "max_documents", "max_bytes"):
        if (value := getattr(source, name)) != getattr(Source, name):
            command += f" --{name.replace('_', '-')} {value}"
    return command


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path


def _tensor(path: Path, manifest: dict[str, Any], tokenizer: Tokenizer, again: str) -> Integer[Tensor, "token"]:
    record = manifest["files"][path.name]
    if not path.exists():
        raise DataError(f"{shown(path)} is missing.", again)
    with files.explained(path, "read"):
        stat = path.stat()
    if stat.st_size < record["bytes"]:
        raise DataError(f"{shown(path)} is cut short: {stat.st_size:,} of {record['bytes']:,} bytes are left.", again)
    try:
        tensor = torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{shown(path)} is refused: it holds more than a tensor, and opening that could run a stranger's code.",
            again,
        ) from error
    except Exception as error:  # torch raises what its zip reader, its unpickler or the system does
        raise DataError(f"{shown(path)} is not a tensor file.", again) from error
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        raise DataError(f"{shown(path)} holds no tensor but a {type(tensor).__name__}.", again)
    if tensor.dim() != 1 or tensor.dtype != torch_dtype(tokenizer.dtype):
        held = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
        raise DataError(f"{shown(path)} holds {held}, not one row of {tokenizer.dtype.name} ids.", again)
    trusted = stat.st_size == record["bytes"] and (
        (stat.st_size >= _ALWAYS_HASHED and stat.st_mtime_ns == record["mtime_ns"])
        or files.sha256(path) == record["sha256"]
    )
    if not trusted:
        for block in tensor.split(_BLOCK):
            low, high = int(block.min()), int(block.max())
            if low < 0 or high >= tokenizer.vocab_size:
                wrong = low if low < 0 else high
                raise DataError(
                    f"{shown(path)} has the id {wrong}, outside its vocabulary of {tokenizer.vocab_size:,}.", again
                )
        raise DataError(f"{shown(path)} is not the file that was prepared with {VOCAB}: its contents changed.", again)
    return tensor

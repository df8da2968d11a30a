"""Other programs' weights as they lie on disk: safetensors or PyTorch's pickles, whole or in shards.

A pickle is a program, and whoever wrote it chose what it does. Two readers are used, and both make tensors, numbers,
texts and containers of them, and call nothing else: PyTorch's own with weights_only, and one for plain pickles that
knows no name at all. What else a file asks for is named, and not run.
"""

import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microformer import files
from microformer.errors import RunError
from microformer.runs import load_tensors

# A plain pickle holds an alphabet; what is larger is none.
_LARGEST_PLAIN = 1 << 26
_LOOKED_THROUGH = 1 << 20
_NAMED = re.compile(r"(?:GLOBAL|global:?) ([\w.]+)")


def read(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, by its name.

    Raises:
        RunError: there are none, a shard is missing, or a file can't be read or is hostile.
    """
    for name, one in (("model.safetensors", load_tensors), ("pytorch_model.bin", tensors_of)):
        if (folder / name).is_file():
            return one(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json", one)
    raise RunError(
        f"{folder} holds no weights.",
        "they are model.safetensors or pytorch_model.bin, or shards of them with their .index.json.",
    )


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that `torch.save` wrote; errors as for `unpickled`."""
    found = unpickled(path)
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise RunError(f"{path} is no state dict: it holds other things than tensors.", "give the model's file.")
    return {str(name): tensor for name, tensor in found.items()}


def unpickled(path: Path) -> Any:
    """What `torch.save` wrote: tensors, and plain containers of them.

    Raises:
        RunError: it is damaged, another kind of file, or asks for something to be called.
    """
    if not zipfile.is_zipfile(path) and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        # PyTorch before 2.6 can be made to run code by this older kind of file (CVE-2025-32434).
        raise RunError(f"{path} is of a kind that this PyTorch {torch.__version__} can't read safely.", "upgrade it.")
    with files.explained(path, "read"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what a damaged file raises is of many kinds
            if isinstance(error, OSError) and error.filename is not None:  # an OSError of torch's own names no file
                raise
            raise _not_read(path, error) from error


def plain(path: Path) -> Any:
    """A pickle of numbers, texts and containers.

    Raises:
        RunError: it is damaged, or asks for something to be called.
    """
    with files.explained(path, "read"):
        if path.stat().st_size > _LARGEST_PLAIN:
            raise RunError(f"{path} is larger than any vocabulary.", "it is another kind of file.")
        try:
            with open(path, "rb") as file:
                return _Plain(file).load()
        except OSError:
            raise
        except Exception as error:  # what a damaged file raises is of many kinds
            raise _not_read(path, error) from error


class _Plain(pickle.Unpickler):
    """Calls nothing, for it finds nothing to call."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def _not_read(path: Path, error: Exception) -> RunError:
    named = _NAMED.search(str(error))
    if asked := named[1] if named else _asked_for(path):
        return RunError(
            f"{path} asks for {asked} to be run, which weights have no need of; nothing of it was run.",
            "don't trust that file: get the model from elsewhere, as safetensors if you can.",
        )
    reason = str(error).split("\n")[0][:200] or type(error).__name__
    return RunError(f"{path} can't be read: {reason.rstrip('.')}.", "it is damaged, or another kind of file.")


def _asked_for(path: Path) -> str | None:
    """The first thing that a pickle names to be called; its code is looked through, and not run."""
    texts: list[str] = []
    try:
        with open(path, "rb") as file:
            for code, argument, _ in pickletools.genops(file.read(_LOOKED_THROUGH)):
                if code.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if code.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except ValueError:  # no pickle, or not a whole one
        pass
    return None


def _shards(index: Path, one: Any) -> dict[str, Tensor]:
    said = files.read_json(index)
    placed = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(placed, dict) or not placed:
        raise RunError(f"{index} is no index of shards: it has no weight_map.", "restore it.")
    found: dict[str, Tensor] = {}
    for name in sorted(set(map(str, placed.values()))):
        if Path(name).name != name:
            raise RunError(f"{index} names {name!r}, which is not in its folder.", "don't trust that folder.")
        if not (index.parent / name).is_file():
            raise RunError(f"{index.parent} lacks the shard {name}.", "download it again, whole.")
        found |= one(index.parent / name)
    return found

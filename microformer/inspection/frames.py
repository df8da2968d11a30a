"""Frames: plain words and arrays of numbers in one answer, which a browser reads without parsing a number.

    4 bytes, the header's length (little-endian) · the header, JSON in UTF-8 · the arrays, each at a multiple of 8

The header says of each array its dtype, its shape, and where it begins, counted from the header's end. NaN and the
infinities, which JSON lacks, travel in arrays. Knows nothing of models or servers.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

# What there are typed arrays for in a browser, and what becomes of other kinds of numbers.
_KINDS = {"f": np.dtype("<f4"), "b": np.dtype(np.uint8), "i": np.dtype("<i4"), "u": np.dtype("<i4")}


def encode(data: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> bytes:
    """Packs a frame.

    Args:
        data: what JSON can hold; a number in it that is not finite becomes null.
        arrays: by name: numpy's, tensors of a CPU, or nested lists. Floats travel as float32, bytes and truth values as
            uint8, other whole numbers as int32.
    """
    described, packed, at = {}, [], 0
    for name, array in (arrays or {}).items():
        plain = np.asarray(array)
        plain = np.ascontiguousarray(plain, plain.dtype if plain.dtype == np.uint8 else _KINDS[plain.dtype.kind])
        described[name] = {"dtype": plain.dtype.name, "shape": list(np.shape(array)), "at": at}
        body = plain.tobytes()
        packed.append(body + bytes(-len(body) % 8))
        at += len(packed[-1])
    header = to_json({"data": data, "arrays": described}).encode("utf-8")
    header += b" " * (-(4 + len(header)) % 8)
    return b"".join([len(header).to_bytes(4, "little"), header, *packed])


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The opposite of `encode`: the words, and the arrays by name."""
    end = 4 + int.from_bytes(frame[:4], "little")
    header = json.loads(frame[4:end])
    arrays = {
        name: np.frombuffer(frame, one["dtype"], math.prod(one["shape"]), end + one["at"]).reshape(one["shape"])
        for name, one in header["arrays"].items()
    }
    return header["data"], arrays


def to_json(value: Any) -> str:
    """JSON that a browser reads: NaN and the infinities, which Python would write and no browser takes, are null."""
    return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            # Half a character (of a file name, say) can't be written as UTF-8.
            return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
        case Mapping():
            return {_finite(key): _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
    return value

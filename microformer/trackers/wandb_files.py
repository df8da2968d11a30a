"""W&B's files of an offline run, as far as they have to be cut back.

`offline-run-<time>-<id>/run-<id>.wandb` is a log of records in LevelDB's format: after 7 bytes, blocks of 32 KiB; in
them pieces of records, each after 7 bytes with its checksum, its length and whether it is whole, first, middle or last.
A record is a protobuf `Record`, and what W&B calls history are those with a step.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from microformer.files import atomic_file

_HEADER = 7
_BLOCK = 1 << 15
_LAST = (1, 4)  # of a record's pieces: the only one, or the last


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each record with the offset at which it ends; until the first that is not whole."""
    at, record = _HEADER, b""
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK  # too little for another piece's header: the rest of a block is empty
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + _HEADER])
        at += _HEADER
        if not kind or at + length > len(data):
            return
        record += data[at : at + length]
        at += length
        if kind in _LAST:
            yield at, record
            record = b""


def history(data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """What was logged, in order: the offset before the record, and each value as JSON by its name."""
    from wandb.proto import wandb_internal_pb2

    kind: Any = vars(wandb_internal_pb2)["Record"]  # made when it is imported: no checker of types knows it
    before = _HEADER
    for end, raw in records(data):
        record = kind.FromString(raw)
        if record.HasField("history"):
            yield before, {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        before = end


def cut_back(folder: Path, id: str, step: int) -> int:
    """Takes out of a run's offline parts what is later than a step.

    Returns:
        the last step that there is: of those sent to the server already, which can't be cut, it may be later; -1 for
        none.
    """
    last = -1
    # A part that begins within the same second as another has a number behind its name.
    for path in sorted(folder.glob(f"*-{id}*/run-{id}.wandb")):
        data = path.read_bytes()
        online = not path.parent.name.startswith("offline-")
        sent = online or path.with_name(path.name + ".synced").exists()
        end = len(data)
        for before, items in history(data):
            at = int(items["_step"])
            if at > step and not sent:
                end = before
                break
            last = max(last, at)
        if not sent:
            # Where there is nothing to cut too: a process that a killed training left may still be writing into the old
            # file, which is nobody's from here on.
            with atomic_file(path) as partial:
                partial.write_bytes(data[:end])
    return last

"""What a preparation takes, said before it begins: refused where the disk can't hold it, told where it takes long."""

import shutil
from pathlib import Path

from microformer import files
from microformer.errors import FileError, notice

# Megabytes a second, about, on two cores (docs/corpora.md): reading, learning and encoding together.
_MB_PER_SECOND = {"char": 100.0, "byte": 150.0}
_LEARNED_MB_PER_SECOND = 4.0
_SECONDS_WORTH_SAYING = 30
# Bytes of text a token of what is learned.
_BYTES_PER_TOKEN = 3.0
# Packed text is unpacked to about so many times its size.
_UNPACKED = 4


def check(folder: Path, text_bytes: int, kind: str, packed: bool, say: bool = False) -> None:
    """Raises FileError where the disk has no room for a text's tokens; says how long it takes, if long.

    Args:
        folder: where they go.
        text_bytes: the text's size, as it lies there.
        kind: the tokenizer's.
        packed: whether it has to be unpacked, and is kept meanwhile.
        say: whether to say the time.
    """
    size = text_bytes * (_UNPACKED if packed else 1)
    tokens = size if kind in _MB_PER_SECOND else size / _BYTES_PER_TOKEN * 2
    # The tokens are written twice: in parts and whole.
    needed = 2 * tokens + (size if packed else 0)
    with files.explained(folder):
        free = shutil.disk_usage(folder).free
    if needed > free:
        raise FileError(
            f"preparing this text takes about {_gigabytes(needed)} in {files.shown(folder)}, and "
            f"{_gigabytes(free)} are free there.",
            "free some space, or take less of it: --max-bytes 1000000000.",
        )
    seconds = size / 1e6 / _MB_PER_SECOND.get(kind, _LEARNED_MB_PER_SECOND)
    if say and seconds > _SECONDS_WORTH_SAYING:
        length = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
        notice(
            f"preparing takes about {length} and {_gigabytes(needed)} of disk meanwhile; interrupted, it goes on later."
        )


def _gigabytes(size: int | float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"

"""Texts cut where their tokens are cut anyway, so that pieces can be encoded apart, on as many cores as there are.

No kind of tokenizer here joins whitespace to what stands before it, so directly before a space, tab or end of line that
follows something else nothing is lost. Knows no tokenizer.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

# Lengths in characters: of a piece that is handed to one core, and of the longest stretch kept together that has no
# place to cut. A stretch as long as that is no word of any language.
PIECE = 1 << 14
LONGEST = 1 << 20
_AT_ONCE = 64
# Python calls more characters whitespace than GPT-2's pattern does. On these four, and on what Python calls none, they
# agree.
_CUT = re.compile(r"(?<=\S)[ \n\r\t]")


def cut(chunks: Iterable[str], size: int = PIECE) -> Iterator[str]:
    """The same text in pieces of about `size` characters, cut alike however it came.

    Where the text goes on for LONGEST characters without a place to cut it is cut there, at a place that depends on
    the text alone.
    """
    text = ""
    for chunk in chunks:
        text += chunk
        start = 0
        while (end := _end_of_piece(text, start, size)) is not None:
            yield text[start:end]
            start = end
        text = text[start:]
    while text:
        end = _end_of_piece(text, 0, size) or len(text)
        yield text[:end]
        text = text[end:]


def batches(pieces: Iterable[str]) -> Iterator[list[str]]:
    """As many pieces at a time as keep the cores at work."""
    left = iter(pieces)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch


def _end_of_piece(text: str, start: int, size: int) -> int | None:
    """Where the piece that begins at `start` ends, or None while only more text can tell."""
    if len(text) - start <= size:
        return None
    place = start + size + 1
    while (place := max(text.rfind(space, start + 1, place) for space in " \n\r\t")) > start:
        if not text[place - 1].isspace():
            return place
    if found := _CUT.search(text, start + size, start + LONGEST + 1):
        return found.start()
    return start + LONGEST if len(text) - start > LONGEST else None

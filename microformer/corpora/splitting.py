"""Where training ends and validation and test begin: by agreement, by document, else by position.

A corpus that is published in parts keeps them, and one whose split is agreed on is cut there. Else validation and test
are the last shares of the text; where it has documents, the cut moves to the nearest end of one. Documents so large
that a part would be less than half or more than twice its share are cut in the middle.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from microformer.corpora.parts import Part, Span, Work, in_utf8, read_part
from microformer.corpora.reading import Text
from microformer.errors import SettingsError, notice

TRAIN, VAL, TEST = "train.pt", "val.pt", "test.pt"
USUAL_VAL_FRACTION = 0.1


def cut(text: Text, work: Work, parts: Sequence[Part], settings: dict[str, Any]) -> dict[str, list[Span]]:
    """Which stretches of which parts are for what: train.pt, and val.pt and test.pt where there are any.

    Raises:
        SettingsError: nothing would be left to train on.
    """
    total = sum(part.characters for part in parts)
    if any(part.label for part in parts):
        found: dict[str, list[Span]] = {}
        for number, part in enumerate(parts):
            found.setdefault(f"{part.label}.pt", []).append(Span(number, 0, part.characters))
        return {name: found[name] for name in (TRAIN, VAL, TEST) if name in found}
    asked = (settings["val_fraction"], settings["test_fraction"])
    if text.split and asked == (None, None) and sum(text.split) == sum(part.bytes for part in parts):
        first = _at_byte(text, work, parts, text.split[0])
        second = _at_byte(text, work, parts, text.split[0] + text.split[1])
    else:
        # Exact, where a product of floats could miss a whole number by a hair.
        val, test = Fraction(str(USUAL_VAL_FRACTION if asked[0] is None else asked[0])), Fraction(str(asked[1] or 0))
        first, second = int(total * (1 - val - test)), int(total * (1 - test))
        if first == 0:
            raise SettingsError(
                f"VAL_FRACTION {float(val):g} leaves none of {total} characters to train on.", "use less, such as 0.1."
            )
        if text.documents:
            first, second = _by_document(text, work, parts, first, second, total)
    ends = {TRAIN: (0, first), VAL: (first, second), TEST: (second, total)}
    return {name: _spans(parts, *stretch) for name, stretch in ends.items() if stretch[0] < stretch[1]}


def _spans(parts: Sequence[Part], begin: int, end: int) -> list[Span]:
    spans, at = [], 0
    for number, part in enumerate(parts):
        first, last = max(begin - at, 0), min(end - at, part.characters)
        if first < last:
            spans.append(Span(number, first, last - first))
        at += part.characters
    return spans


def _by_document(text: Text, work: Work, parts: Sequence[Part], first: int, second: int, total: int) -> tuple[int, int]:
    """The two cuts, moved to ends of documents where the parts stay about as large as they should be."""
    nearest = [_nearest_end(text, work, parts, cut) if cut < total else total for cut in (first, second)]
    wanted, found = (second - first, total - second), (nearest[1] - nearest[0], total - nearest[1])
    fits = all(size / 2 <= here <= 2 * size for size, here in zip(wanted, found, strict=True))
    if fits and nearest[0] > 0:
        return nearest[0], nearest[1]
    if second > first or total > second:
        notice("the documents are too large to be kept for validation whole: the last one is cut.")
    return first, second


def _nearest_end(text: Text, work: Work, parts: Sequence[Part], target: int) -> int:
    """The end of a document nearest to a character."""
    ends, at = [], 0
    for number, part in enumerate(parts):
        if part.first_end >= 0:
            ends += [at + part.first_end, at + part.last_end]
        if at <= target < at + part.characters and part.documents > 2:
            reached = at
            for piece in read_part(text, work, number, part):
                reached += len(piece.text)
                if piece.ends:
                    ends.append(reached)
        at += part.characters
    return min(ends, key=lambda end: (abs(end - target), end), default=target)


def _at_byte(text: Text, work: Work, parts: Sequence[Part], target: int) -> int:
    """The first character at or after a byte of the text in UTF-8."""
    at = reached = 0
    for number, part in enumerate(parts):
        if reached + part.bytes >= target:
            if part.bytes == part.characters:
                return at + target - reached
            for piece in read_part(text, work, number, part):
                data = in_utf8(piece.text)
                if reached + len(data) >= target:
                    return at + len(data[: target - reached].decode("utf-8", "ignore"))
                at, reached = at + len(piece.text), reached + len(data)
        at, reached = at + part.characters, reached + part.bytes
    return at

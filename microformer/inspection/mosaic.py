"""Attention patterns of all heads as one picture, for trackers: a row of squares a layer, a square a head.

In a square each row is a query and each column a key, the first token at the upper left. Its colour is the root of the
share, so that a tenth can be told from nothing: black 0, through violet and orange, to pale yellow 1. Keys that come
after a query are left white. Knows no model, and no torch: it works beside a training, in a tracker's thread
(`devices.one_thread_here` says why).
"""

import numpy as np
from jaxtyping import Float, UInt8

# Colours at even distances, as in matplotlib's "inferno".
_COLOURS = (
    (0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84), (221, 81, 58),
    (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164),
)  # fmt: skip
# Of the shares between 0 and 1 so many are told apart; behind their colours stand those of paper, of what is not known
# and of ink.
_SHADES = 253
_PAPER, _UNKNOWN, _INK = range(_SHADES, 256)
# The side of a square is at least this long, in pixels, where all of them together stay within the widest picture.
_SIDE = 192
_WIDEST = 1600
_GAP = 6

# Letters of 3 by 5 points, a row an octal digit, drawn at double size: for what a head is called.
_LETTERS = {
    "0": 0o75557, "1": 0o26227, "2": 0o71747, "3": 0o71717, "4": 0o55711, "5": 0o74717, "6": 0o74757, "7": 0o71111,
    "8": 0o75757, "9": 0o75717, "L": 0o44447, "H": 0o55755,
}  # fmt: skip
_LETTER = 2


def mosaic(
    patterns: Float[np.ndarray, "layer head query key"],
) -> tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "256 3"]]:
    """The picture: the number of each point's colour, and the colours. A layer without a pattern (all NaN) is left
    grey."""
    layers, heads, queries, keys = patterns.shape
    size = max(1, min(-(-_SIDE // max(queries, keys)), (_WIDEST // heads - _GAP) // keys))
    shares = np.sqrt(patterns.clip(0, 1))
    unknown = np.isnan(shares)
    shades = np.where(unknown, 0, shares * (_SHADES - 1)).round().astype(np.uint8)
    shades[unknown] = _UNKNOWN
    # The keys before the text's own are of a memory.
    shades[:, :, np.triu(np.ones((queries, keys), bool), keys - queries + 1)] = _PAPER
    squares = shades.repeat(size, axis=2).repeat(size, axis=3)
    for layer in range(layers):
        for head in range(heads):
            _write(squares[layer, head], f"L{layer}H{head}")
    framed = np.full((layers, heads, queries * size + _GAP, keys * size + _GAP), _PAPER, np.uint8)
    framed[:, :, _GAP:, _GAP:] = squares
    whole = framed.transpose(0, 2, 1, 3).reshape(layers * framed.shape[2], heads * framed.shape[3])
    return np.pad(whole, ((0, _GAP), (0, _GAP)), constant_values=_PAPER), _palette()


def _palette() -> UInt8[np.ndarray, "256 3"]:
    """The colour of each shade, and of paper, what is not known, and ink."""
    places, wanted = np.linspace(0, 1, len(_COLOURS)), np.linspace(0, 1, _SHADES)
    shades = np.stack([np.interp(wanted, places, channel) for channel in zip(*_COLOURS, strict=True)], axis=-1)
    return np.concatenate([shades.round(), [[255] * 3, [200] * 3, [90] * 3]]).astype(np.uint8)


def _write(square: UInt8[np.ndarray, "height width"], word: str) -> None:
    """Writes a word into the upper right corner, where no query looks; not where it is too small for that."""
    points = np.zeros((5, 4 * len(word)), bool)
    for at, letter in enumerate(word):
        rows = [int(row) for row in f"{_LETTERS[letter]:05o}"]
        points[:, 4 * at + 1 : 4 * at + 4] = [[bool(row & bit) for bit in (4, 2, 1)] for row in rows]
    large = points.repeat(_LETTER, axis=0).repeat(_LETTER, axis=1)
    height, width = large.shape
    if 2 * width <= square.shape[1] and 2 * height <= square.shape[0]:
        square[:height, square.shape[1] - width :][large] = _INK

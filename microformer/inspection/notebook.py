"""A trace as a notebook shows it: the text coloured by what each token cost, and a small map a head.

One piece of HTML with its pictures in it: nothing is fetched, no script runs, and it can stand on a page any number of
times. The page (`microformer inspect`) shows more, and lets one ask.
"""

import base64
import html
import math
import struct
import zlib

import torch
from jaxtyping import UInt8
from torch import Tensor

from microformer.inspection.activations import TraceError
from microformer.inspection.trace import Trace

_MOST_TOKENS = 512
_MAP = 64
_STYLE = (
    "font:13px/1.7 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;color:#1f2430;"
    "background:#fff;padding:10px;border:1px solid #d0d5dd;border-radius:6px;max-width:60em"
)
# The loss at which a token has its full colour, in bits.
_DEEP = 10.0


def drawn(seen: Trace) -> str:
    """The trace as HTML."""
    bits = [math.nan, *(seen.losses / math.log(2)).tolist()]
    tokens = "".join(_token(*one) for one in zip(seen.tokens[:_MOST_TOKENS], bits, strict=False))
    more = len(seen.ids) - _MOST_TOKENS
    end = f" … {more:,} tokens more" if more > 0 else ""
    mean = float(seen.losses.mean() / math.log(2)) if len(seen.ids) > 1 else math.nan
    edits = f", {html.escape(', '.join(map(str, seen.edits)))}" if seen.edits else ""
    name = html.escape(seen.run.name) if seen.run else type(seen.model).__name__
    caption = f"<b>{name}</b>{edits}: {len(seen.ids):,} tokens, {mean:.2f} bits a token (redder: dearer)"
    return f'<div style="{_STYLE}"><div>{caption}</div><div>{tokens}{end}</div>{_heads(seen)}</div>'


def _token(text: str, bits: float) -> str:
    shown = html.escape(text.replace("\n", "↵\n").replace("\t", "⇥\t"))
    if math.isnan(bits):
        return f'<span title="not scored">{shown}</span>'
    depth = min(max(bits, 0.0) / _DEEP, 1.0)
    return f'<span title="{bits:.2f} bits" style="background:rgba(220,38,38,{0.75 * depth:.2f})">{shown}</span>'


def _heads(seen: Trace) -> str:
    rows = []
    for layer in range(seen.model.spec.depth):
        try:
            pattern = seen.pattern(layer)
        except TraceError as error:
            rows.append(f"<div>L{layer}: {html.escape(error.sentence)}</div>")
            continue
        maps = "".join(
            f'<img alt="attention of L{layer}H{head}" title="L{layer}H{head}" src="{_picture(one)}" '
            f'style="width:{_MAP}px;height:{_MAP}px;margin:2px;image-rendering:pixelated;border:1px solid #eceff3">'
            for head, one in enumerate(pattern)
        )
        rows.append(f'<div style="display:flex;flex-wrap:wrap;align-items:center">L{layer} {maps}</div>')
    return f'<div title="attention: a row a query, a column a key">{"".join(rows)}</div>'


def _picture(pattern: Tensor) -> str:
    """A head's pattern as a PNG, at most 64 by 64, each cell the largest of those it stands for; darker is more."""
    size = [min(_MAP, one) for one in pattern.shape]
    small = torch.nn.functional.adaptive_max_pool2d(torch.nan_to_num(pattern)[None].clamp_min(0), size)[0]
    grey = 255 - (255 * small / small.max().clamp_min(1e-9)).round()
    return "data:image/png;base64," + base64.b64encode(_png(grey.to(torch.uint8))).decode("ascii")


def _png(grey: UInt8[Tensor, "row column"]) -> bytes:
    """A grey picture by the format's own words (W3C 2003, "Portable Network Graphics")."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes(row) for row in grey.tolist())
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")

"""Pictures for trackers. Knows pixels."""

import io
import threading
from collections.abc import Callable
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "height width 3"]


class Drawn:
    """A picture that is drawn when the first tracker looks at it, and packed once for all.

    Args:
        draw: gives its pixels, red, green and blue.
    """

    def __init__(self, draw: Callable[[], Pixels]):
        self._draw = draw
        self._lock = threading.RLock()  # each tracker has a thread of its own

    @property
    def pixels(self) -> Pixels:
        """As an array."""
        with self._lock:
            return self._pixels

    @property
    def png(self) -> bytes:
        """As a file."""
        with self._lock:
            return self._png

    @cached_property
    def _pixels(self) -> Pixels:
        return self._draw()

    @cached_property
    def _png(self) -> bytes:
        from PIL import Image

        packed = io.BytesIO()
        # Half the time of the usual level 6, and a twentieth more bytes.
        Image.fromarray(self._pixels).save(packed, "png", compress_level=3)
        return packed.getvalue()

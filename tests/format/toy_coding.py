"""A position coding that the library does not have: a bit for each word of a span, a number for each bit that is set.

A copy of the library gets this file as `format/positions/bitmap.py`, and one line in the registry.
"""

from __future__ import annotations

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format.positions.coding import Decoded, PositionCoding, Span
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions


class Bitmap(PositionCoding):
    """Two streams: bits, eight a byte, and numbers."""

    id = "bitmap"
    since = 2
    rule = "T1"
    offered = True

    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """Give positions and numbers. Raises `CorruptFileError` (T1)."""
        if len(streams) != 2 or streams[0].dtype != np.uint8 or streams[0].size != -(-span.words // 8):
            raise CorruptFileError(f"{span.where}: not a bit for each word", "T1")
        bits, numbers = np.unpackbits(streams[0]), streams[1]
        span.check_numbers(numbers)
        if np.count_nonzero(bits) != numbers.size or bits[span.words :].any():
            raise CorruptFileError(f"{span.where}: not a number for each bit", "T1")
        return np.flatnonzero(bits) + span.start, numbers

    def encode(self, positions: Positions, numbers: Numbers, start: int, stop: int) -> list[Numbers]:
        """Give bits and numbers."""
        bits = np.zeros(stop - start, np.bool_)
        bits[positions - start] = True
        return [np.packbits(bits), numbers]


BITMAP = Bitmap()

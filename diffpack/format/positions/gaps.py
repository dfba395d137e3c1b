"""Sorted positions as gaps: first differences minus one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.streams import Numbers

Positions = npt.NDArray[np.int64]  # 1-D, strictly increasing


def encode(positions: Positions, start: int) -> Numbers:
    """Code positions in a span that starts at `start`, in the smallest of u16, u32, u64 (u8 gains nothing)."""
    gaps = np.empty(positions.size, np.int64)
    if positions.size:
        gaps[0] = positions[0] - start
        np.subtract(positions[1:], positions[:-1], out=gaps[1:])
        gaps[1:] -= 1
    largest = int(gaps.max(initial=0))
    width = 2 if largest < 1 << 16 else 4 if largest < 1 << 32 else 8
    return gaps.astype(f"<u{width}")


def decode(gaps: Numbers, start: int, stop: int, where: str) -> Positions:
    """Decode positions in the span [start, stop). Raises `CorruptFileError` (P1) if one is outside."""
    if gaps.dtype.kind != "u":
        raise CorruptFileError(f"{where}: gaps are unsigned, not {gaps.dtype.name}", "P1")
    span = stop - start
    if gaps.size > span or (gaps.size and int(gaps.max()) >= span):
        raise CorruptFileError(f"{where}: a position outside its span", "P1")
    positions: npt.NDArray[Any] = np.cumsum(gaps, dtype=np.int64)
    # A sum of gaps below `span` (< 2^62) can wrap past 2^63 only by passing it, where it turns negative.
    if positions.size:
        positions += np.arange(start, start + positions.size, dtype=np.int64)
        if int(positions[-1]) >= stop or int(positions.min()) < start:
            raise CorruptFileError(f"{where}: a position outside its span", "P1")
    return positions

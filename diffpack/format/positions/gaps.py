"""Sorted positions as gaps: first differences minus one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.positions.coding import Decoded, PositionCoding, Span
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions


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
    positions: npt.NDArray[Any] = gaps.astype(np.int64)
    positions += 1
    np.cumsum(positions, out=positions)
    # A sum of steps up to `span` (< 2^62) can wrap past 2^63 only by passing it, where it turns negative, and stays so
    # when the start (< 2^62) is added.
    positions += start - 1
    if positions.size and (int(positions[-1]) >= stop or int(positions.min()) < start):
        raise CorruptFileError(f"{where}: a position outside its span", "P1")
    return positions


class Gaps(PositionCoding):
    """Two streams: gaps, and a number for each."""

    id = "gaps"
    offered = True

    def stored(self, counts: Sequence[int]) -> int | None:
        """As many as there are gaps."""
        return counts[0] if counts else None

    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """Positions and numbers. Raises `CorruptFileError` (P1, P3, V2)."""
        where = span.where
        if len(streams) != 2:
            raise CorruptFileError(f"{where}: {len(streams)} streams, not gaps and values", "P3")
        gaps, numbers = streams
        span.check_numbers(numbers)
        if span.line.value_coding.exact and not numbers.all():
            raise CorruptFileError(f"{where}: a step of 0", "V2")
        if gaps.size != numbers.size:
            raise CorruptFileError(f"{where}: {gaps.size} gaps and {numbers.size} values", "P1")
        return decode(gaps, span.start, span.stop, where), numbers

    def encode(self, positions: Positions, numbers: Numbers, start: int, stop: int) -> list[Numbers]:
        """Gaps and numbers."""
        return [encode(positions, start), numbers]


GAPS = Gaps()

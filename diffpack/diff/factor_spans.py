"""From the factors of a group's records to chunks, and what the manifest says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from diffpack.format.chunks import EncodedChunk, encode_chunk
from diffpack.format.factors import spans
from diffpack.format.factors.line import INT, FactorLine
from diffpack.format.factors.product import Factors
from diffpack.format.manifest import FactorTable, MatrixTable
from diffpack.format.streams import Numbers

_SPAN = 1 << 20
"""Numbers a chunk of factors holds: those of many records, since classes want many numbers."""


def scale_streams(scales: Sequence[np.float32], factors: Sequence[Factors]) -> list[Numbers]:
    """The streams of a group's first chunk: scales of its records, and if they have factors those' scales and weights.

    Factors are those of all records, of one kind of values, or none.
    """
    streams: list[Numbers] = [np.array(scales, "<f4").view("<u4")]
    if not factors:
        return streams
    streams.append(np.array([own.scale for own in factors], "<f4").view("<u4"))
    weights = [matrix.weights for own in factors for matrix in own.matrices]
    return [*streams, np.concatenate(weights) if factors[0].values == INT else np.empty(0, np.uint16)]


def factor_table(factors: Sequence[Factors], ends: Sequence[int]) -> FactorTable | None:
    """What the manifest says of a group's factors; None if it has none."""
    return FactorTable(factors[0].values, tuple(map(_matrices, factors)), tuple(ends)) if factors else None


def factor_jobs(factors: Sequence[Factors], profile: str) -> Iterator[tuple[int, Callable[[], EncodedChunk]]]:
    """Cut a group's factor line into spans: the end of each, and the job that codes its chunk."""
    if not factors:
        return
    line = FactorLine([_matrices(own) for own in factors])
    sides = [side.reshape(-1) for own in factors for matrix in own.matrices for side in (matrix.left, matrix.right)]
    start = 0
    for stop in _cuts(line):
        yield stop, partial(_encoded, line, sides, start, stop, factors[0].values, profile)
        start = stop


def _matrices(factors: Factors) -> MatrixTable:
    return factors.rows, factors.columns, tuple(matrix.rank for matrix in factors.matrices)


def _cuts(line: FactorLine) -> Iterator[int]:
    """The ends of spans: behind a whole component, unless a single one is larger than a span."""
    start = last = 0
    for shape, first in zip(line.shapes, line.starts, strict=False):
        for end in range(first + shape.width, first + shape.numbers + 1, shape.width):
            if end - start > _SPAN and last > start:
                yield last
                start = last
            while end - start > _SPAN:
                start += _SPAN
                yield start
            last = end
    if line.length > start:
        yield line.length


def _encoded(
    line: FactorLine, sides: Sequence[Numbers], start: int, stop: int, values: str, profile: str
) -> EncodedChunk:
    numbers = np.concatenate([sides[at][first:last] for at, first, last in line.parts(start, stop)])
    return encode_chunk(spans.encode(numbers, line, start, stop, values), profile)

"""From the factors of a group's records to chunks, and what the manifest says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from diffpack.extraction.encode.level_costs import cheapest, column_levels, row_levels
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.format.chunks import EncodedChunk, encode_chunk
from diffpack.format.factors.line import INT, FactorLine
from diffpack.format.factors.product import Factors
from diffpack.format.manifest import FactorTable, MatrixTable
from diffpack.format.positions import levels
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.levels import Plan
from diffpack.format.streams import Numbers
from diffpack.format.values.floats import FLOATS

_SPAN = 1 << 20
"""Numbers a chunk of factors holds: those of many records, since classes want many numbers."""


def scale_streams(plans: Sequence[RecordPlan]) -> list[Numbers]:
    """The streams of a group's first chunk: scales, and with factors their scales and weights."""
    streams: list[Numbers] = [np.array([plan.scale for plan in plans], "<f4").view("<u4")]
    factors = _factors(plans)
    if not factors:
        return streams
    streams.append(np.array([own.scale for own in factors], "<f4").view("<u4"))
    weights = [matrix.weights for own in factors for matrix in own.matrices]
    return [*streams, np.concatenate(weights) if factors[0].values == INT else np.empty(0, np.uint16)]


def factor_table(plans: Sequence[RecordPlan], ends: Sequence[int]) -> FactorTable | None:
    """What the manifest says of a group's factors; None if it has none."""
    factors = _factors(plans)
    return FactorTable(factors[0].values, tuple(map(_matrices, factors)), tuple(ends)) if factors else None


def factor_jobs(plans: Sequence[RecordPlan], profile: str) -> Iterator[tuple[int, Callable[[], EncodedChunk]]]:
    """Cut a group's factor line into spans: the end of each, and the job that codes its chunk."""
    factors = _factors(plans)
    if not factors:
        return
    line = FactorLine([_matrices(own) for own in factors])
    sides = [side.reshape(-1) for own in factors for matrix in own.matrices for side in (matrix.left, matrix.right)]
    start = 0
    for stop in _cuts(line):
        yield stop, partial(_encoded, line, sides, start, stop, factors[0].values, profile)
        start = stop


def _factors(plans: Sequence[RecordPlan]) -> list[Factors]:
    return [plan.factors for plan in plans if plan.factors is not None]


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
    return encode_chunk(_streams(numbers, line.geometry(start, stop), values), profile)


def _streams(numbers: Numbers, geometry: Geometry, values: str) -> list[Numbers]:
    """Levels of components, and of the rows and columns of matrices, where they cost less than they save."""
    sizes = np.abs(numbers.astype(np.float32) if values == INT else FLOATS[values].differences(numbers))
    rows, columns = row_levels(sizes, geometry), column_levels(sizes, geometry)
    plan = cheapest([Plan(), Plan(rows), Plan(rows, columns)], geometry, None, np.abs(numbers.astype(np.float32)))
    return levels.encode(plan, plan.members(geometry, None), numbers)

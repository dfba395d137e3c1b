"""A span of a factor line <-> the streams of its chunk: components and entries have levels, as rows and columns do."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format.factors.line import INT, FactorLine
from diffpack.format.positions import levels
from diffpack.format.positions.level_costs import bit_lengths, cheapest, column_levels, row_levels, sampled
from diffpack.format.positions.levels import Plan
from diffpack.format.streams import Numbers
from diffpack.format.values.floats import FLOATS


def stream_dtype(values: str) -> np.dtype[Any]:
    """The dtype of the numbers of factors: int16, or of a float's ordered integers."""
    return np.dtype("<i2") if values == INT else FLOATS[values].stored.step


def encode(numbers: Numbers, line: FactorLine, start: int, stop: int, values: str) -> list[Numbers]:
    """The streams of the numbers of the span [start, stop) of a factor line.

    Components, and rows and columns of matrices, have levels where these cost less than they save.
    """
    geometry = line.geometry(start, stop)
    sizes = np.abs(numbers.astype(np.float32) if values == INT else FLOATS[values].differences(numbers))
    rows, columns = row_levels(sizes, geometry), column_levels(sizes, geometry)
    plan = cheapest(
        [Plan(), Plan(rows), Plan(rows, columns)], geometry, None, bit_lengths(numbers[sampled(numbers.size)])
    )
    return levels.encode(plan, plan.split(geometry, None), numbers)


def decode(streams: list[Numbers], line: FactorLine, start: int, stop: int, values: str, where: str) -> Numbers:
    """The numbers of the span [start, stop) of a factor line.

    Raises `CorruptFileError` (U4; R2, K, P1 and V2 as for levels; V3 for floats that are not finite).
    """
    geometry = line.geometry(start, stop)
    stored = levels.parse(streams, geometry, stream_dtype(values), 0, where)
    if stored.plan.slope:
        raise CorruptFileError(f"{where}: exponents of factors, which have none", "U4")
    numbers: Numbers = np.zeros(stop - start, stream_dtype(values))
    split, changes = stored.split(geometry, None, where)
    split.fill(numbers, changes)
    if values != INT and not np.isfinite(FLOATS[values].differences(numbers)).all():
        raise CorruptFileError(f"{where}: a factor that is not finite", "V3")
    return numbers

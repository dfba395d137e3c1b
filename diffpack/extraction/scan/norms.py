"""How far tensors moved: L2 norms of differences, safe from overflow."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.scan import Scan
from diffpack.format.values import floats
from diffpack.tensors.dtypes import DType, Words

_SQUARED_WELL = (1e-100, 1e100)
"""Numbers whose squares, and their sums, are float64 numbers."""


def norms(scans: Iterable[Scan]) -> dict[str, float]:
    """|tuned - reference| of each scanned tensor whose error is told: floats that both sides have."""
    return {item.pair.name: _moved(item) for item in scans if item.pair.both_float and not item.pair.resized}


def _moved(item: Scan) -> float:
    dtype, total = item.pair.info.dtype, 0.0
    for start, stop in item.changed_blocks():
        total = norm_of_norms(total, difference_norm(item.reference.slice(start, stop), item.tuned[start:stop], dtype))
    return total


def difference_norm(one: Words, other: Words, dtype: DType) -> float:
    """|one - other| (L2) of words of a float dtype; differences that are not finite count as zero."""
    difference: npt.NDArray[np.float64] = floats.difference(one, other, dtype).astype(np.float64)
    if not np.isfinite(difference).all():
        difference = np.nan_to_num(difference, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(np.abs(difference).max(initial=0.0))
    if _SQUARED_WELL[0] < largest < _SQUARED_WELL[1] or not largest:
        return math.sqrt(np.dot(difference, difference))
    difference /= largest
    return min(largest * math.sqrt(np.dot(difference, difference)), sys.float_info.max)


def norm_of_norms(*values: float) -> float:
    """The norm of parts put together, capped at the largest float64."""
    return min(math.hypot(*values), sys.float_info.max)

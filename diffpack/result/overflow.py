"""Entries that a change makes infinite although its reference is finite: a sum beyond the last number of a dtype."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import DType, Words, to_float


def not_finite(words: Words, dtype: DType) -> npt.NDArray[np.bool_]:
    """Mark the words of an arithmetic dtype that are infinite or NaN: those with all bits of the exponent."""
    highest = infinity(dtype)
    mask: npt.NDArray[np.bool_] = (words & highest) == highest
    return mask


def infinity(dtype: DType) -> Words:
    """The one word (in an array) of positive infinity, of an arithmetic dtype."""
    return np.array([_INFINITY[dtype.name]], dtype.word)


_INFINITY = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "BF16": 0x7F80, "F16": 0x7C00}


def largest_finite(dtype: DType) -> float:
    """The largest finite number of an arithmetic dtype."""
    return float(to_float(infinity(dtype) - 1, dtype)[0])


def made_infinite(reference: Words, result: Words, dtype: DType) -> npt.NDArray[np.bool_]:
    """Mark the words of the result that are not finite where those of the reference are."""
    mask = not_finite(result, dtype)
    if mask.any():
        mask &= ~not_finite(reference, dtype)
    return mask


def remark(counts: Mapping[str, int]) -> str:
    """Say to people how many entries of which tensors lossy values made infinite."""
    which = listed([f"{printable(name)} ({count:,})" for name, count in sorted(counts.items())])
    return (
        f"{sum(counts.values()):,} of the result's entries are infinite: sums beyond what their dtype holds, in {which}"
    )

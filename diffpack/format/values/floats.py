"""Float values: f32, f16 and bf16 numbers that are added to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DTYPES, DType, Words, from_float, ordered, to_float, unordered

FLOATS: dict[str, DType] = {"f32": DTYPES["F32"], "f16": DTYPES["F16"], "bf16": DTYPES["BF16"]}
"""Value codings that are floats, and the dtype each is stored in."""


def encode(differences: npt.NDArray[Any], coding: str) -> Numbers:
    """Round float32 or float64 differences to the coding's dtype; give their ordered integers."""
    dtype = FLOATS[coding]
    return ordered(from_float(differences, dtype), dtype)


def decode(numbers: Numbers, coding: str) -> npt.NDArray[np.float32]:
    """Give the float32 values that were stored."""
    dtype = FLOATS[coding]
    return to_float(unordered(numbers, dtype), dtype)


def difference(reference: Words, tuned: Words, dtype: DType) -> npt.NDArray[Any]:
    """Give `tuned - reference` in float32 (float64 for F64)."""
    with np.errstate(invalid="ignore", over="ignore"):
        result: npt.NDArray[Any] = to_float(tuned, dtype) - to_float(reference, dtype)
    return result


def add(reference: Words, values: npt.NDArray[np.float32], dtype: DType) -> Words:
    """Add float32 values to a reference: float32 (F64: float64) addition, then one rounding to the dtype."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = to_float(reference, dtype) + values
    return from_float(total, dtype)

"""Float values: f32, f16 and bf16 numbers that are added to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.streams import Numbers
from diffpack.format.values.coding import NO_SCALE, ValueCoding
from diffpack.tensors.dtypes import DTYPES, DType, Words, from_float, ordered, to_float, unordered


def difference(reference: Words, tuned: Words, dtype: DType) -> npt.NDArray[Any]:
    """The differences `tuned - reference` in float32 (float64 for F64)."""
    with np.errstate(invalid="ignore", over="ignore"):
        result: npt.NDArray[Any] = to_float(tuned, dtype) - to_float(reference, dtype)
    return result


def change(before: Words, after: Words, dtype: DType) -> npt.NDArray[Any]:
    """The differences of words; what keeps its bits does not change, be it infinite or no number."""
    differences = difference(before, after, dtype)
    if not np.isfinite(differences).all():
        differences = np.where(before == after, differences.dtype.type(0), differences)
    return differences


def add(reference: Words, values: npt.NDArray[np.float32], dtype: DType) -> Words:
    """Add float32 values to a reference: float32 (F64: float64) addition, then one rounding to the dtype."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = to_float(reference, dtype) + values
    return from_float(total, dtype)


class Added(ValueCoding):
    """A coding whose numbers stand for float32 differences, which are added to the reference."""

    def change(self, reference: Words, numbers: Numbers, dtype: DType, scale: np.float32 = NO_SCALE) -> Words:
        """Add what the numbers stand for."""
        return add(reference, self.differences(numbers, scale), dtype)

    def encode(self, reference: Words, tuned: Words, dtype: DType, scale: np.float32 = NO_SCALE) -> Numbers:
        """The numbers nearest to the differences."""
        return self.numbers(difference(reference, tuned, dtype), scale)

    def numbers(self, differences: npt.NDArray[Any], scale: np.float32 = NO_SCALE) -> Numbers:
        """The numbers nearest to float32 or float64 differences (1-D)."""
        raise TypeError(f"numbers of {self.id} are chosen class by class")


class Floats(Added):
    """Floats of a dtype, stored as their ordered integers."""

    def __init__(self, name: str, stored: DType) -> None:
        self.id = name
        self.stored = stored

    def stream(self, dtype: DType) -> np.dtype[Any]:
        """The signed dtype of the stored floats."""
        return self.stored.step

    def check(self, numbers: Numbers, dtype: DType, where: str) -> None:
        """Check that the floats are finite. Raises `CorruptFileError` (V1, V3)."""
        super().check(numbers, dtype, where)
        if not np.isfinite(self.differences(numbers)).all():
            raise CorruptFileError(f"{where}: a value that is not finite", "V3")

    def differences(self, numbers: Numbers, scale: np.float32 = NO_SCALE) -> npt.NDArray[np.float32]:
        """The float32 values that were stored."""
        return to_float(unordered(numbers, self.stored), self.stored)

    def numbers(self, differences: npt.NDArray[Any], scale: np.float32 = NO_SCALE) -> Numbers:
        """Round differences to the stored dtype; give their ordered integers."""
        return ordered(from_float(differences, self.stored), self.stored)

    def effective(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Mark numbers that stand for a value other than zero (the ordered integer of -0.0 is -1)."""
        mask: npt.NDArray[np.bool_] = (numbers != 0) & (numbers != -1)
        return mask


F32, F16, BF16 = (Floats(name, DTYPES[name.upper()]) for name in ("f32", "f16", "bf16"))
FLOATS: dict[str, Floats] = {coding.id: coding for coding in (F32, F16, BF16)}
"""Value codings that are floats."""

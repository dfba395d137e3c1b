"""int8 values: whole multiples, -127 to 127, of a scale each record has; and coarser ones, stored the same way.

`int4` keeps to -7 to 7, `ternary` to -1, 0 and 1, `sign` to -1 and 1 (one scale, the mean magnitude, as BitDelta of Liu
et al. 2024 has for a matrix, and ComPEFT of Yadav et al. 2023 for the largest entries). The file need not know: fewer
different numbers take fewer bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.streams import Numbers
from diffpack.format.values.coding import NO_SCALE
from diffpack.format.values.floats import Added
from diffpack.tensors.dtypes import DType

_LIMIT = 127
_CLIPS = np.geomspace(1.0, 1 / 16, 33)  # a finer grid changes the squared error by under 0.1 %
_COARSE_CLIPS = np.geomspace(1.0, 1 / 1024, 81)  # few multiples: the largest differences are clipped, most are not


class Multiples(Added):
    """Whole multiples of a record's scale, up to `limit` in magnitude; `name` is the way to choose them.

    All are stored as int8 values, and told apart by nobody who reads them.
    """

    id = "int8"
    scaled = True

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit

    def stream(self, dtype: DType) -> np.dtype[Any]:
        """int8, whatever the tensors are."""
        return np.dtype("<i1")

    def check(self, numbers: Numbers, dtype: DType, where: str) -> None:
        """Check that no number is -128. Raises `CorruptFileError` (V1)."""
        super().check(numbers, dtype, where)
        if numbers.size and int(numbers.min()) < -_LIMIT:
            raise CorruptFileError(f"{where}: the value -128", "V1")

    def differences(self, numbers: Numbers, scale: np.float32) -> npt.NDArray[np.float32]:
        """The float32 values: number x scale, rounded once."""
        return numbers.astype(np.float32) * np.float32(scale)

    def numbers(self, differences: npt.NDArray[Any], scale: np.float32 = NO_SCALE) -> Numbers:
        """The nearest multiples of the scale, clipped to the limit; all 0 for a scale of 0."""
        if scale == 0:
            return np.zeros(differences.size, np.int8)
        numbers: Numbers = np.clip(np.rint(differences / scale), -self.limit, self.limit).astype(np.int8)
        return numbers

    def best_scale(self, differences: npt.NDArray[Any]) -> float:
        """Find the scale that minimises the squared error of `differences` (0.0 if all are zero)."""
        magnitude = np.abs(differences.astype(np.float64))
        largest = float(magnitude.max(initial=0.0))
        if largest == 0.0:
            return 0.0
        scales = largest / self.limit * (_CLIPS if self.limit == _LIMIT else _COARSE_CLIPS)
        return float(scales[np.argmin([self._squared_error(magnitude, scale) for scale in scales])])

    def snap(self, anchor: float, differences: npt.NDArray[Any]) -> np.float32:
        """Find the best scale among `anchor` times a power of two.

        Tensors of like magnitude then share one step, which costs fewer bits at the same total error than a
        scale fitted to each, and tensors of another magnitude keep their own.
        """
        best = self.best_scale(differences)
        if best == 0.0 or anchor == 0.0:
            return NO_SCALE
        magnitude = np.abs(differences.astype(np.float64))
        nearest = int(np.floor(np.log2(best / anchor)))
        with np.errstate(over="ignore", under="ignore"):
            scales = np.float32(anchor) * np.exp2(np.arange(nearest - 1, nearest + 3)).astype(np.float32)
            scales = scales[np.isfinite(scales * np.float32(self.limit)) & (scales > 0)]
        if not scales.size:
            return NO_SCALE
        return np.float32(scales[np.argmin([self._squared_error(magnitude, float(scale)) for scale in scales])])

    def _squared_error(self, magnitude: npt.NDArray[np.float64], scale: float) -> float:
        quantised = np.minimum(np.rint(magnitude / scale), self.limit) * scale
        return float(np.square(quantised - magnitude).sum())


class Signs(Multiples):
    """The sign alone: -1, 0 or 1, of a scale that is the mean magnitude."""

    def numbers(self, differences: npt.NDArray[Any], scale: np.float32 = NO_SCALE) -> Numbers:
        """The signs; all 0 for a scale of 0."""
        if scale == 0:
            return np.zeros(differences.size, np.int8)
        signs: Numbers = np.sign(differences).astype(np.int8)
        return signs


INT8 = Multiples("int8", _LIMIT)
SIGN = Signs("sign", 1)
QUANTISERS = {coding.name: coding for coding in (INT8, Multiples("int4", 7), Multiples("ternary", 1), SIGN)}
"""The ways to choose multiples, by the names a user asks for them."""

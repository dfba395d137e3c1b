"""The values of records with factors: what the factors come to and what the grid adds, as one float32 for each word.

No file has a stream of them: it has the factors and the grid's numbers, and the sum of both is what a word changes by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers
from diffpack.format.values.coding import NO_SCALE
from diffpack.format.values.floats import Added
from diffpack.format.values.grid import OFFSETS
from diffpack.tensors.dtypes import DType, Words


class Summed(Added):
    """float32 values of every word; 0 is no change."""

    id = "lowrank"
    class_offsets = OFFSETS

    def stream(self, dtype: DType) -> np.dtype[Any]:
        """float32, whatever the tensors are: not of a stream, but of decoded numbers."""
        return np.dtype("<f4")

    def change(self, reference: Words, numbers: Numbers, dtype: DType, scale: np.float32 = NO_SCALE) -> Words:
        """Add the values; a word whose value is 0 stays as it is."""
        changed = super().change(reference, numbers, dtype, scale)
        still = numbers == 0
        return np.where(still, reference, changed) if still.any() else changed

    def differences(self, numbers: Numbers, scale: np.float32 = NO_SCALE) -> npt.NDArray[np.float32]:
        """The values themselves."""
        return numbers


SUMMED = Summed()

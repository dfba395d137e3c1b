"""The predicted reference of an exact record with factors: its reference, changed by what these come to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpack.format.factors.product import Factors
from diffpack.format.values.summed import SUMMED
from diffpack.tensors.dtypes import Words
from diffpack.tensors.reference import Reference


class Predicted(Reference):
    """A reference whose words are changed by factors as a lossy record's are; `info` is that of floats."""

    def __init__(self, reference: Reference, factors: Factors) -> None:
        super().__init__(reference.info)
        self._reference = reference
        self._factors = factors

    @property
    def unconverted(self) -> bool:
        """Say no: its words are not the base tensor's."""
        return False

    def slice(self, start: int, stop: int) -> Words:
        """The words [start, stop)."""
        before = self._reference.slice(start, stop)
        return SUMMED.change(before, self._factors.change(start, stop), self.info.dtype)

    def at(self, positions: npt.NDArray[np.int64]) -> Words:
        """The words at sorted positions."""
        before = self._reference.at(positions)
        return SUMMED.change(before, self._factors.change_at(positions), self.info.dtype)

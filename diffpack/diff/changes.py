"""The changes of a part of one tensor: positions and numbers, and what they make of the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions


@dataclass(frozen=True)
class Changes:
    """The changes in the words [start, stop) of one tensor; `positions` None means every word."""

    start: int
    stop: int
    positions: Positions | None
    numbers: Numbers

    def within(self, start: int, stop: int) -> tuple[Positions | slice, Numbers]:
        """Give the changes in [start, stop) as an index relative to `start`, and their numbers."""
        if self.positions is None:
            return slice(None), self.numbers[start - self.start : stop - self.start]
        low, high = np.searchsorted(self.positions, [start, stop])
        return self.positions[low:high] - start, self.numbers[low:high]

    def nonzero(self) -> Changes:
        """Give the same without numbers that are zero, and with positions."""
        kept = np.flatnonzero(self.numbers)
        if self.positions is not None and kept.size == self.numbers.size:
            return self
        positions = kept + self.start if self.positions is None else self.positions[kept]
        return Changes(self.start, self.stop, positions, self.numbers[kept])

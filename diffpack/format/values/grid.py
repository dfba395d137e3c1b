"""Grid values: numbers on one grid of steps, with a dead zone around zero and points at the means of what fell there.

A number q stands for (q + sign(q) x offset / 256) steps; each class has offsets for 1, 2, and 3 or more. Which number
an entry gets is the writer's choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers
from diffpack.format.values.coding import NO_SCALE
from diffpack.format.values.floats import Added
from diffpack.tensors.dtypes import DType

UNITS = 256
"""Units a step: what offsets count in."""
LIMIT = 32767
OFFSETS = 3
"""Offsets a class has: for the numbers 1, 2, and 3 or more."""


class Grid(Added):
    """int16 numbers in classes; the scale of a record is a 256th of its step, and a decoded span holds units of it."""

    id = "grid"
    since = 1
    rule = "R1"
    scaled = True
    class_offsets = OFFSETS
    units = UNITS

    def stream(self, dtype: DType) -> np.dtype[Any]:
        """int16, whatever the tensors are."""
        return np.dtype("<i2")

    def in_units(self, numbers: Numbers, offsets: npt.NDArray[np.int8]) -> Numbers:
        """What numbers (int16) of a class stand for, in units of a step / 256 (int32); 0 for 0."""
        table = np.concatenate(([0], offsets)).astype(np.int32)
        size = np.abs(numbers.astype(np.int32))
        moved = size * UNITS + table[np.minimum(size, OFFSETS)]
        units: Numbers = np.where(numbers < 0, -moved, moved)
        return units

    def differences(self, numbers: Numbers, scale: np.float32 = NO_SCALE) -> npt.NDArray[np.float32]:
        """The float32 values of units: each times the scale, rounded once."""
        return numbers.astype(np.float32) * np.float32(scale)


GRID = Grid()

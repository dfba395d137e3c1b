"""Grid values: numbers on one grid of steps, with a dead zone around zero and points at the centres of what fell there.

A number q stands for (q + sign(q) x offset / 256) steps; each class has offsets for 1, 2, and 3 or more. Which number an
entry gets is the writer's choice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers

UNITS = 256
"""Units a step: what offsets count in."""
LIMIT = 32767
OFFSETS = 3
"""Offsets a class has: for the numbers 1, 2, and 3 or more."""


def units(numbers: Numbers, offsets: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Give what numbers (int16) of a class stand for, in units of a step / 256; 0 for 0."""
    table = np.concatenate(([0], offsets)).astype(np.int32)
    size = np.abs(numbers.astype(np.int32))
    moved = size * UNITS + table[np.minimum(size, OFFSETS)]
    result: npt.NDArray[np.int32] = np.where(numbers < 0, -moved, moved)
    return result

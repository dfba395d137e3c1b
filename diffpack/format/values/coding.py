"""What a value coding is: how the numbers of a span are stored, checked, and what they make of the reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DType, Words

NO_SCALE = np.float32(0)
"""The scale of records whose values need none."""


class ValueCoding(ABC):
    """One way to store what changes at a position; the objects stand in the registry of this package.

    `id` is its name in the file. `since` is the minor version that brought it, if a file must require it by its id
    (rule `rule`); None if every reader knows it. `exact` values are steps, which give the tuned entries bit for bit.
    `scaled` ones come with a scale for each record. `class_offsets` is how many offsets each class of words has beside
    its numbers (0: none): then numbers are stored class by class, and a decoded span holds units, `units` a number.
    """

    id: str
    since: int | None = None
    rule = ""
    exact = False
    scaled = False
    class_offsets = 0
    units = 1

    @abstractmethod
    def stream(self, dtype: DType) -> np.dtype[Any]:
        """The dtype of the stream of numbers, for tensors of `dtype`."""

    @abstractmethod
    def change(self, reference: Words, numbers: Numbers, dtype: DType, scale: np.float32) -> Words:
        """What the numbers (as many) make of reference words."""

    @abstractmethod
    def encode(self, reference: Words, tuned: Words, dtype: DType, scale: np.float32) -> Numbers:
        """The numbers that lead from `reference` to `tuned` (same length), or as near as the coding can."""

    @abstractmethod
    def differences(self, numbers: Numbers, scale: np.float32) -> npt.NDArray[np.float32]:
        """The float32 differences that lossy numbers stand for (of a class with offsets: their units)."""

    def check(self, numbers: Numbers, dtype: DType, where: str) -> None:
        """Check a stream of numbers as far as it goes without a scale. Raises `CorruptFileError` (V1, V3)."""
        if numbers.dtype != self.stream(dtype):
            raise CorruptFileError(f"{where}: {self.id} values as {numbers.dtype.name}", "V1")

    def effective(self, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Mark numbers that stand for another change than none."""
        mask: npt.NDArray[np.bool_] = numbers != 0
        return mask

    def in_units(self, numbers: Numbers, offsets: npt.NDArray[np.int8]) -> Numbers:
        """What numbers of a class with these offsets stand for, as int32 units; of codings with offsets only."""
        raise TypeError(f"{self.id} values have no offsets")

    def __repr__(self) -> str:
        return f"<value coding {self.id}>"

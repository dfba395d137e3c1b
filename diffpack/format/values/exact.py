"""Exact values: steps on the ordered-integer line, modulo 2^w."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers
from diffpack.format.values.coding import NO_SCALE, ValueCoding
from diffpack.tensors.dtypes import DType, Words, ordered, unordered


def encode(reference: Words, tuned: Words, dtype: DType) -> Numbers:
    """The steps that lead from `reference` to `tuned` (same length)."""
    steps: Numbers = ordered(tuned, dtype) - ordered(reference, dtype)
    return steps


def add(reference: Words, steps: Numbers, dtype: DType) -> Words:
    """Take the steps: the words they lead to."""
    return unordered(ordered(reference, dtype) + steps, dtype)


class Exact(ValueCoding):
    """Signed steps as wide as a word."""

    id = "exact"
    exact = True

    def stream(self, dtype: DType) -> np.dtype[Any]:
        """The signed dtype as wide as a word."""
        return dtype.step

    def change(self, reference: Words, numbers: Numbers, dtype: DType, scale: np.float32 = NO_SCALE) -> Words:
        """Take the steps."""
        return add(reference, numbers, dtype)

    def encode(self, reference: Words, tuned: Words, dtype: DType, scale: np.float32 = NO_SCALE) -> Numbers:
        """The steps."""
        return encode(reference, tuned, dtype)

    def differences(self, numbers: Numbers, scale: np.float32) -> npt.NDArray[np.float32]:
        """Raise `TypeError`: what steps make depends on the reference."""
        raise TypeError("steps are no differences")


EXACT = Exact()

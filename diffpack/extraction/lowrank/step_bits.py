"""What steps between two roundings of like numbers cost, by how far the numbers are apart."""

from __future__ import annotations

from functools import cache
from math import erf, exp, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.tensors.dtypes import MANTISSA_BITS, DType, Words, exponents

_LOWEST, _HIGHEST, _AN_OCTAVE = -8, 4, 4
"""Octaves of deviation / step that are tabulated, and points in each; above, the bits grow by one an octave."""
_REACH = 8  # deviations on either side that are summed up
_NEAR = 2.0**0.125
"""By what factor deviations differ whose bits tell what energy is worth."""


class StepBits:
    """The bits of a tensor's steps if what they stand for has a normal distribution of some deviation.

    Both sides of a step are numbers rounded to the tensor's dtype, so its size is in units of the last place, which
    the exponent of the reference tells, or of the other side where that is far larger. `reference` is a sample of its
    words.
    """

    def __init__(self, reference: Words, dtype: DType) -> None:
        kinds, self._counts = np.unique(exponents(reference, dtype), return_counts=True)
        self._mantissa = MANTISSA_BITS[dtype.name]
        bias = (1 << (dtype.word_bits - self._mantissa - 2)) - 1
        self._last_places = np.ldexp(1.0, np.maximum(kinds.astype(np.int64), 1) - bias - self._mantissa)

    def of(self, deviation: float) -> float:
        """The bits a word, on average."""
        last_places = np.maximum(self._last_places, np.ldexp(deviation, -self._mantissa))
        return float(np.average(_bits(deviation / last_places), weights=self._counts))

    def a_unit(self, deviation: float) -> float:
        """The bits that are saved for each unit of squared differences taken out of a tensor that has these left."""
        more = deviation * _NEAR
        return (self.of(more) - self.of(deviation)) / (more * more - deviation * deviation)


def _bits(apart: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The entropy of a step between two rounded numbers that are normally distributed, in steps, around each other."""
    table = _table()
    octaves = np.log2(apart)
    at = np.clip((octaves - _LOWEST) * _AN_OCTAVE, 0, len(table) - 1)
    inside = np.interp(at, np.arange(len(table)), table)
    below = np.exp2(np.minimum(octaves - _LOWEST, 0))
    bits: npt.NDArray[Any] = inside * below + np.maximum(octaves - _HIGHEST, 0)
    return bits


@cache
def _table() -> npt.NDArray[Any]:
    points = range(_LOWEST * _AN_OCTAVE, _HIGHEST * _AN_OCTAVE + 1)
    return np.array([_entropy(2.0 ** (point / _AN_OCTAVE)) for point in points])


def _entropy(deviation: float) -> float:
    """By the second differences of the twofold integral of the normal density, as both roundings are uniform."""
    most = int(_REACH * deviation) + 2
    integral = np.array([_integral(step, deviation) for step in range(-most - 1, most + 2)])
    chances = np.diff(integral, 2)
    chances = chances[chances > 0]
    return float(-(chances * np.log2(chances)).sum())


def _integral(step: int, deviation: float) -> float:
    scaled = step / deviation
    below = (1 + erf(scaled / sqrt(2))) / 2
    return step * below + deviation * exp(-scaled * scaled / 2) / sqrt(2 * pi)

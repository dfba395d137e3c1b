"""What the numbers of factors cost: quantised row by row where they are, foretold where they are not yet."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode import grid_quantiser
from diffpack.format.streams import Numbers

_LEVELS_AN_OCTAVE = 2
_TOGETHER = 1 << 20
"""Entries that are weighed at once: more tell no more, and take 40 bytes each."""
_SAMPLE = 1 << 14
_LOWEST, _HIGHEST, _AN_OCTAVE = -5, 12, 4
"""Octaves of deviation / step that are tabulated, and points in each."""


def quantise_rows(rows: npt.NDArray[np.float32]) -> tuple[Numbers, npt.NDArray[np.float64]]:
    """Choose the number (int16) of each entry of components given in steps: (rank, width), and the bits of each row.

    Rows of like mean size are weighed together (`grid_quantiser`), as they will be coded.
    """
    numbers = np.zeros(rows.shape, np.int16)
    bits = np.zeros(len(rows))
    means = np.array([np.abs(row).mean() for row in rows])
    with np.errstate(divide="ignore"):
        levels = np.rint(_LEVELS_AN_OCTAVE * np.log2(means))
    most = max(1, _TOGETHER // rows.shape[1])
    for level in np.unique(levels):
        alike = np.flatnonzero(levels == level)
        for own in np.split(alike, range(most, alike.size, most)):
            part, _ = grid_quantiser.quantise(rows[own].reshape(-1))
            numbers[own] = part.reshape(own.size, -1)
            bits[own] = _entropy(part).reshape(own.size, -1).sum(axis=1)
    return numbers, bits


def _entropy(numbers: Numbers) -> npt.NDArray[np.float64]:
    """The bits of each number, by how often it is among them."""
    raised = numbers.astype(np.int64) - int(numbers.min())
    counts = np.bincount(raised)
    bits: npt.NDArray[np.float64] = -np.log2(np.maximum(counts, 1) / numbers.size)[raised]
    return bits


def foretold(deviations: npt.NDArray[np.float64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Bits, and squared error in squared steps, of an entry of normal distribution, by its deviation in steps."""
    at, bits, errors = _table()
    logs = np.log2(np.maximum(deviations, 2.0**_LOWEST))
    return np.interp(logs, at, bits), np.interp(logs, at, errors)


@cache
def _table() -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    normal = np.abs(np.random.default_rng(0).standard_normal(_SAMPLE, np.float32))
    at = np.arange(_AN_OCTAVE * _LOWEST, _AN_OCTAVE * _HIGHEST + 1) / _AN_OCTAVE
    told = [grid_quantiser.forecast(grid_quantiser.histogram(normal * np.float32(2.0**log)), 1.0) for log in at]
    bits, errors = (np.array([pair[side] for pair in told]) / _SAMPLE for side in (0, 1))
    return at, bits, errors

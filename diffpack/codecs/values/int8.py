"""int8 values: whole multiples, -127 to 127, of a scale each record has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.codecs.streams import Numbers

LIMIT = 127
_CLIPS = np.geomspace(1.0, 1 / 16, 33)  # a finer grid changes the squared error by under 0.1 %


def best_scale(differences: npt.NDArray[Any]) -> float:
    """Find the scale that minimises the squared error of quantising `differences` (0.0 if all are zero)."""
    magnitude = np.abs(differences.astype(np.float64))
    largest = float(magnitude.max(initial=0.0))
    if largest == 0.0:
        return 0.0
    scales = largest / LIMIT * _CLIPS
    return float(scales[np.argmin([_squared_error(magnitude, scale) for scale in scales])])


def snap(anchor: float, differences: npt.NDArray[Any]) -> np.float32:
    """Find the best scale among `anchor` times a power of two.

    Tensors of like magnitude then share one step, which costs fewer bits at the same total error than a
    scale fitted to each, and tensors of another magnitude keep their own.
    """
    best = best_scale(differences)
    if best == 0.0 or anchor == 0.0:
        return np.float32(0.0)
    magnitude = np.abs(differences.astype(np.float64))
    nearest = int(np.floor(np.log2(best / anchor)))
    with np.errstate(over="ignore", under="ignore"):
        scales = np.float32(anchor) * np.exp2(np.arange(nearest - 1, nearest + 3)).astype(np.float32)
    scales = scales[np.isfinite(scales * np.float32(LIMIT)) & (scales > 0)]
    if not scales.size:
        return np.float32(0.0)
    return np.float32(scales[np.argmin([_squared_error(magnitude, float(scale)) for scale in scales])])


def encode(differences: npt.NDArray[Any], scale: np.float32) -> Numbers:
    """Quantise differences to the nearest multiples of `scale`, clipped to +-127."""
    if scale == 0:
        return np.zeros(differences.size, np.int8)
    return np.clip(np.rint(differences / scale), -LIMIT, LIMIT).astype(np.int8)


def decode(numbers: Numbers, scale: np.float32) -> npt.NDArray[np.float32]:
    """Give the float32 values: number x scale, rounded once."""
    return numbers.astype(np.float32) * np.float32(scale)


def _squared_error(magnitude: npt.NDArray[np.float64], scale: float) -> float:
    quantised = np.minimum(np.rint(magnitude / scale), LIMIT) * scale
    return float(np.square(quantised - magnitude).sum())

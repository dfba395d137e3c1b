"""int8 values: whole multiples, -127 to 127, of a scale each record has; and coarser ones, stored the same way.

`int4` keeps to -7 to 7, `ternary` to -1, 0 and 1, `sign` to -1 and 1 (one scale, the mean magnitude, as BitDelta of Liu
et al. 2024 has for a matrix, and ComPEFT of Yadav et al. 2023 for the largest entries). The file need not know: fewer
different numbers take fewer bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers

LIMITS = {"int8": 127, "int4": 7, "ternary": 1, "sign": 1}
"""The largest multiple of each way to quantise."""
LIMIT = LIMITS["int8"]
_CLIPS = np.geomspace(1.0, 1 / 16, 33)  # a finer grid changes the squared error by under 0.1 %
_COARSE_CLIPS = np.geomspace(1.0, 1 / 1024, 81)  # few multiples: the largest differences are clipped, most are not


def best_scale(differences: npt.NDArray[Any], quantiser: str = "int8") -> float:
    """Find the scale that minimises the squared error of quantising `differences` (0.0 if all are zero).

    Not for `sign`, whose best scale is the mean magnitude.
    """
    magnitude = np.abs(differences.astype(np.float64))
    largest = float(magnitude.max(initial=0.0))
    if largest == 0.0:
        return 0.0
    limit = LIMITS[quantiser]
    scales = largest / limit * (_CLIPS if limit == LIMIT else _COARSE_CLIPS)
    return float(scales[np.argmin([_squared_error(magnitude, scale, limit) for scale in scales])])


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
    return np.float32(scales[np.argmin([_squared_error(magnitude, float(scale), LIMIT) for scale in scales])])


def encode(differences: npt.NDArray[Any], scale: np.float32, quantiser: str = "int8") -> Numbers:
    """Quantise differences to the nearest multiples of `scale`, clipped to the quantiser's limit; `sign` to +-1."""
    if scale == 0:
        return np.zeros(differences.size, np.int8)
    if quantiser == "sign":
        signs: Numbers = np.sign(differences).astype(np.int8)
        return signs
    limit = LIMITS[quantiser]
    numbers: Numbers = np.clip(np.rint(differences / scale), -limit, limit).astype(np.int8)
    return numbers


def decode(numbers: Numbers, scale: np.float32) -> npt.NDArray[np.float32]:
    """Give the float32 values: number x scale, rounded once."""
    return numbers.astype(np.float32) * np.float32(scale)


def _squared_error(magnitude: npt.NDArray[np.float64], scale: float, limit: int) -> float:
    quantised = np.minimum(np.rint(magnitude / scale), limit) * scale
    return float(np.square(quantised - magnitude).sum())

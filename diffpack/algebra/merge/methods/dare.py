"""DARE: drop changes at random and rescale the rest, then add up, or elect signs as TIES does.

Yu et al. 2024, *Language Models are Super Mario* (arXiv 2311.03099), section 3.2: drop with probability 1 - density,
divide what is left by the density.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.algebra.delta import Delta
from diffpack.algebra.merge.method import Draw, Method, Settings

SOURCE = "Yu et al. 2024, arXiv 2311.03099"


def keep_at_random(delta: Delta, settings: Settings, draw: Draw) -> Delta:
    """Keep each change with the chance `density`, and rescale."""
    assert settings.density is not None
    delta = delta.sparse()
    chances = np.full(delta.values.size, settings.density)
    return drop(delta, chances, settings, draw)


def drop(delta: Delta, chances: npt.NDArray[np.float64], settings: Settings, draw: Draw) -> Delta:
    """Keep each value with its chance; scale those kept by 1 / chance, to the old L1 norm, or not at all."""
    mask = draw.uniform(delta.values.size) < chances
    kept = delta.keep(mask)
    if settings.rescale == "expected":
        return kept.times(1 / chances[mask])
    if settings.rescale == "norm":
        before, after = _norm(delta.values), _norm(kept.values)
        return kept.times(before / after) if min(before, after) >= _NOTHING else kept
    return kept


_NOTHING = 1e-7  # a norm below it is not restored (mergekit's bound)


def _norm(values: npt.NDArray[Any]) -> float:
    return float(np.abs(values).sum(dtype=np.float64))


LINEAR = Method("dare_linear", SOURCE, keep_at_random, random=True, options=("seed", "rescale"))
TIES = Method("dare_ties", SOURCE, keep_at_random, elect="weighted", random=True, options=("seed", "rescale"))

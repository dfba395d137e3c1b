"""Magnitude pruning: the largest changes of each diff, then their weighted sum.

As `magnitude_prune` of PEFT; the trimming step of TIES-Merging (arXiv 2306.01708, section 4.2) alone.
"""

from __future__ import annotations

import numpy as np

from diffpack.algebra.delta import Delta
from diffpack.algebra.merge.method import Draw, Method, Settings


def keep_largest(delta: Delta, settings: Settings, _: Draw) -> Delta:
    """Keep the largest |values|: `density` of the tensor's entries, at least one; of equal ones the first."""
    assert settings.density is not None
    delta = delta.sparse()
    count = max(1, int(settings.density * delta.entries))
    if count >= delta.values.size:
        return delta
    return delta.keep(largest(np.abs(delta.values), count))


def largest(sizes: np.ndarray, count: int) -> np.ndarray:
    """Mark the `count` largest numbers, 0 < count < their number; of equal ones the first."""
    limit = np.partition(sizes, sizes.size - count)[sizes.size - count]
    mask: np.ndarray = sizes > limit
    equal = np.flatnonzero(sizes == limit)
    mask[equal[: count - int(np.count_nonzero(mask))]] = True
    return mask


METHOD = Method("magnitude", "PEFT's magnitude_prune", keep_largest)

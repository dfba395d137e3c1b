"""SCE: select the entries that differ most, weigh each diff by its energy there, erase minority signs.

Wan et al. 2024, *FuseChat* (arXiv 2408.07990), section 3.3. `density` is a fraction of the entries that differ at all.
The weights are the diffs' mean squares in the tensor over their sum, as published; mergekit makes them equal where
that sum is below 1e-6, which it is for most fine-tunes: `epsilon` is such a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import numpy as np

from diffpack.algebra.delta import Delta, side_by_side, united
from diffpack.algebra.merge.method import Method, Settings
from diffpack.algebra.merge.methods.magnitude import largest


def select(deltas: Sequence[Delta], settings: Settings) -> tuple[list[Delta], list[float]]:
    """The selected part of each delta, and its weight."""
    kept = [delta.sparse() for delta in deltas]
    if settings.density not in (None, 1):
        kept = _selected(kept, float(settings.density or 0))
    energies = [float(np.square(delta.values, dtype=np.float64).sum()) for delta in kept]
    total = fsum(energies)
    if settings.epsilon is not None and total < settings.epsilon * kept[0].entries:
        return kept, [1 / len(kept)] * len(kept)
    return kept, [energy / total if total else 1 / len(kept) for energy in energies]


def _selected(deltas: Sequence[Delta], density: float) -> list[Delta]:
    """Keep the places with the largest variance between the deltas."""
    union = united([delta.positions for delta in deltas if delta.positions is not None])
    parts = [np.empty(0), *(np.var(np.sort(block.matrix, axis=0), axis=0) for block in side_by_side(deltas))]
    variance = np.concatenate(parts)
    count = int(np.count_nonzero(variance) * density)
    if count >= union.size:
        return list(deltas)
    chosen = union[largest(variance, count)] if count else union[:0]
    return [delta.keep(np.isin(delta.positions, chosen, assume_unique=True)) for delta in deltas]  # type: ignore[arg-type] # sparse deltas have positions


METHOD = Method(
    "sce", "Wan et al. 2024, arXiv 2408.07990", elect="plain", normalize=True, options=("epsilon",), select=select
)

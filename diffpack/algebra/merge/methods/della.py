"""DELLA: drop changes at random, small ones more often, rescale the rest, elect signs as TIES does.

Deep et al. 2024, *DELLA-Merging* (arXiv 2406.11617), section 3: in each row the chance to be kept grows with the rank
of the magnitude, from density - epsilon to density + epsilon. As in mergekit, a row runs along the second dimension.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from diffpack.algebra.delta import Delta
from diffpack.algebra.merge.method import Draw, Method, Settings
from diffpack.algebra.merge.methods.dare import drop
from diffpack.errors import UsageError

SOURCE = "Deep et al. 2024, arXiv 2406.11617"
_EPSILON = 0.15  # mergekit's default, made smaller where density +- epsilon would leave (0, 1)
_ROOM = 0.99


def keep_by_rank(delta: Delta, settings: Settings, draw: Draw) -> Delta:
    """Keep each change with a chance that follows its rank in its row, and rescale."""
    delta = delta.sparse()
    return drop(delta, chances(delta, settings), settings, draw)


def chances(delta: Delta, settings: Settings) -> npt.NDArray[np.float64]:
    """Each value's chance to be kept. Unchanged entries of a row have its lowest ranks."""
    assert settings.density is not None
    assert delta.positions is not None
    density, epsilon = settings.density, settings.epsilon
    if epsilon is None:
        epsilon = min(_EPSILON, _ROOM * density, _ROOM * (1 - density))
    elif not 0 < density - epsilon <= density + epsilon < 1:
        raise UsageError(f"density {density} +- epsilon {epsilon} leaves (0, 1)")
    width = delta.shape[1] if len(delta.shape) > 1 else delta.entries
    rest = prod(delta.shape[2:])
    rows = delta.positions // (width * rest) * rest + delta.positions % rest
    order = np.lexsort((np.abs(delta.values), rows))
    ordered = rows[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    rank = np.empty(order.size)
    rank[order] = width - 1 - (ends - 1 - np.arange(order.size))  # 0 is the smallest of the row
    chance: npt.NDArray[np.float64] = density - epsilon + 2 * epsilon * rank / max(width - 1, 1)
    return chance


OPTIONS = ("seed", "epsilon", "rescale")
METHOD = Method("della", SOURCE, keep_by_rank, elect="weighted", normalize=True, random=True, options=OPTIONS)
LINEAR = Method("della_linear", SOURCE, keep_by_rank, random=True, options=OPTIONS)

"""Model breadcrumbs: leave out the smallest changes of each diff and its largest, the outliers; add up the rest.

Davari and Belilovsky 2024, *Model Breadcrumbs* (arXiv 2312.06795), section 3. `gamma` is the fraction of a tensor's
entries left out as outliers, `density` the fraction kept, as in mergekit.
"""

from __future__ import annotations

import numpy as np

from diffpack.algebra.delta import Delta
from diffpack.algebra.merge.method import Draw, Method, Settings

SOURCE = "Davari and Belilovsky 2024, arXiv 2312.06795"


def keep_between(delta: Delta, settings: Settings, _: Draw) -> Delta:
    """Keep the changes whose magnitude's rank in the tensor lies between the two masks."""
    assert settings.density is not None
    delta = delta.sparse()
    count, outliers = int(settings.density * delta.entries), int(settings.gamma * delta.entries)
    lowest = max(0, delta.entries - count - outliers)
    unchanged = delta.entries - delta.values.size  # they have the lowest ranks
    first, last = max(0, lowest - unchanged), max(0, lowest + count - unchanged)
    mask = np.zeros(delta.values.size, np.bool_)
    mask[np.argsort(np.abs(delta.values), kind="stable")[first:last]] = True
    return delta.keep(mask)


METHOD = Method("breadcrumbs", SOURCE, keep_between, options=("gamma",))
TIES = Method("breadcrumbs_ties", SOURCE, keep_between, elect="weighted", options=("gamma",))

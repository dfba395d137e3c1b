"""Models to merge, and their diffs."""

from __future__ import annotations

import numpy as np

import diffpack


def zeros(*shapes):
    return {f"t{at}": np.zeros(shape, np.float32) for at, shape in enumerate(shapes)}


def tuned(base, seed, density=0.3):
    rng = np.random.default_rng(seed)
    return {
        name: np.where(rng.random(array.shape) < density, rng.standard_normal(array.shape), 0).astype(np.float32)
        for name, array in base.items()
    }


def diffs_of(base, models, **options):
    return [diffpack.extract(base, model, **{"values": "f32", **options}) for model in models]

"""The profile smallest keeps its word: no file of it is larger than the one that compact writes, but for 0.1 %."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import diffpack
from tests.extraction.test_choice import PATTERNS, pair
from tests.tools.models import bits

SLACK = 1.001
"""What estimates may be wrong by."""
MODELS = {
    "experts": [(64, 64)] * 300,
    "tiny": [(8, 8)] * 20,
    "few": [(50, 30)] * 6,
    "one": [(16, 16)],
    "mixed": [(300, 200), (200,), (64, 48), (48,), (7, 5), (1000, 30), (30,), (128, 128), (3,), (1,)] * 4,
    "norms": [(256,)] * 60,
}


def updated(kind, base, rng):
    """A tensor as a kind of training leaves it; words of bfloat16 or float32."""
    entries = base.astype(np.float32)
    match kind:
        case "sparse":
            return np.where(rng.random(base.shape) < 0.01, entries * 1.1 + 1e-3, entries)
        case "sparser":
            return np.where(rng.random(base.shape) < 0.001, entries * 1.1 + 1e-3, entries)
        case "reinforced":  # small steps: in a narrow dtype weights of small magnitude alone change
            return entries + rng.normal(0, 2e-5, base.shape)
        case "dense":
            return entries + rng.normal(0, 1e-2, base.shape)
        case "rows":
            rows = rng.random(base.shape[0]) < 0.1
            return np.where(
                rows.reshape(-1, *[1] * (base.ndim - 1)), entries + rng.normal(0, 1e-2, base.shape), entries
            )
        case "some":  # tensors of one model that have little in common
            return updated(["sparse", "reinforced", "dense", "rows"][rng.integers(4)], base, rng)
    raise AssertionError(kind)


KINDS = ["sparse", "sparser", "reinforced", "dense", "rows", "some"]


def small_tensors(shapes, kind, dtype):
    rng = np.random.default_rng(3)
    base = {f"layers.{at:03}.w": (rng.standard_normal(shape) * 0.02).astype(dtype) for at, shape in enumerate(shapes)}
    return base, {name: updated(kind, entries, rng).astype(dtype) for name, entries in base.items()}


def keeps_its_word(base, tuned):
    compact, smallest = (diffpack.extract(base, tuned, profile=profile) for profile in ("compact", "smallest"))
    assert bits(diffpack.load(base, smallest)) == bits(tuned)
    assert smallest.nbytes <= SLACK * compact.nbytes, (smallest.nbytes, compact.nbytes)
    return smallest


@pytest.mark.parametrize("pattern", PATTERNS)
def test_on_every_pattern_of_change(pattern):
    keeps_its_word(*pair(pattern))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_on_small_tensors(model, kind, dtype):
    keeps_its_word(*small_tensors(MODELS[model], kind, dtype))

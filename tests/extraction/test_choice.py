"""The coding chosen for a tensor is the smallest, or nearly, and never larger than the tensor itself."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.models import bits

SHAPE = (1500, 400)
CODINGS = ("gaps", "all", "levels")


def where(pattern):
    rng = np.random.default_rng(1)
    mask = np.zeros(SHAPE, bool)
    flat = mask.reshape(-1)
    match pattern:
        case "random":
            mask[:] = rng.random(SHAPE) < 0.01
        case "dense":
            mask[:] = True
        case "half":
            mask[:] = rng.random(SHAPE) < 0.5
        case "rows":
            mask[rng.random(SHAPE[0]) < 0.1] = True
        case "most rows":
            mask[rng.random(SHAPE[0]) < 0.7] = True
        case "columns":
            mask[:, rng.random(SHAPE[1]) < 0.1] = True
        case "block":
            mask[200:500, 100:250] = True
        case "sparse rows":
            mask[rng.random(SHAPE[0]) < 0.05] = True
            mask &= rng.random(SHAPE) < 0.2
        case "runs":
            for start in rng.integers(0, flat.size - 500, 60):
                flat[start : start + 500] = True
    return mask


PATTERNS = ["random", "dense", "half", "rows", "most rows", "columns", "block", "sparse rows", "runs"]


def pair(pattern):
    rng = np.random.default_rng(0)
    base = rng.standard_normal(SHAPE).astype(np.float32)
    moved = (base + rng.normal(0, 1e-5, SHAPE)).astype(np.float32)
    return {"w": base}, {"w": np.where(where(pattern), moved, base)}


@pytest.mark.parametrize("profile", ["compact", "portable", "smallest"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_choice_is_within_half_a_percent_of_the_best(pattern, profile):
    base, tuned = pair(pattern)
    best = min(diffpack.extract(base, tuned, positions=coding, profile=profile).nbytes for coding in CODINGS)
    chosen = diffpack.extract(base, tuned, profile=profile)
    assert bits(diffpack.load(base, chosen)) == bits(tuned)
    assert chosen.nbytes <= 1.005 * best


@pytest.mark.parametrize("profile", ["compact", "portable", "smallest"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "int8", "uint8"])
def test_never_larger_than_the_tensor_itself(profile, dtype):
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize * 300_000
    sides = [{"w": np.frombuffer(rng.bytes(size), dtype).reshape(600, 500)} for _ in range(2)]
    for tuned in (sides[1], {"new": sides[1]["w"]}):
        diff = diffpack.extract(sides[0], tuned, profile=profile, allow_removed=True)
        assert sum(chunk.nbytes for chunk in diff.chunks) <= size
        assert bits(diffpack.load(sides[0], diff)) == bits(tuned)


def test_a_coding_that_is_asked_for_is_used():
    base, tuned = pair("random")
    for coding in CODINGS:
        assert diffpack.extract(base, tuned, positions=coding)["w"].coding == (coding, "exact")
    with pytest.raises(UsageError, match="positions"):
        diffpack.extract(base, tuned, positions="columns")


def test_each_tensor_has_its_own_coding():
    base, tuned = {}, {}
    for pattern in ("random", "dense", "rows"):
        (before,), (after,) = (list(side.values()) for side in pair(pattern))
        base[pattern], tuned[pattern] = before, after
    diff = diffpack.extract(base, tuned)
    assert {name: record.coding[0] for name, record in diff.items()} == {
        "random": "gaps", "dense": "all", "rows": "levels",
    }  # fmt: skip
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_what_the_base_foretells_nothing_of_is_not_coded_against_it():
    """Random positions in float32: classes would gain nothing, and cost time."""
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((1000, 1000)).astype(np.float32)}
    tuned = {"w": np.where(rng.random((1000, 1000)) < 0.005, rng.standard_normal((1000, 1000)), base["w"])}
    tuned["w"] = tuned["w"].astype(np.float32)
    assert diffpack.extract(base, tuned, profile="smallest")["w"].coding[0] == "gaps"
    narrow = [{"w": side["w"].astype(ml_dtypes.bfloat16)} for side in (base, tuned)]
    assert bits(diffpack.load(narrow[0], diffpack.extract(*narrow, profile="smallest"))) == bits(narrow[1])

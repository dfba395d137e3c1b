"""Byte budgets and target errors where the usual search has nothing to hold on to."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError

SHAPE = (256, 192)
BASE = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def moved(kind: str) -> np.ndarray:
    """Change the base in a way that bytes and errors jump with the step."""
    rng = np.random.default_rng(1)
    few = rng.random(SHAPE) < 0.005
    tuned = BASE.copy()
    if kind == "gaussian":
        tuned[few] += rng.normal(0, 0.01, few.sum()).astype(np.float32)
    elif kind == "signs":
        tuned[few] += np.where(rng.random(few.sum()) < 0.5, -0.01, 0.01).astype(np.float32)
    elif kind == "one":
        tuned[5, 5] += 1
    elif kind == "rows":
        tuned[100:103] += rng.normal(0, 0.01, (3, SHAPE[1])).astype(np.float32)
    elif kind == "outlier":
        tuned[few] += rng.normal(0, 0.01, few.sum()).astype(np.float32)
        tuned[5, 5] += 100
    elif kind == "dense outlier":
        tuned += rng.normal(0, 0.001, SHAPE).astype(np.float32)
        tuned[5, 5] += 10
    return tuned


KINDS = ["gaussian", "signs", "one", "rows", "outlier", "dense outlier"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [0.01, 0.1, 0.3, 0.5, 0.99])
def test_a_target_error_is_always_kept(kind, target):
    tuned = moved(kind)
    diff = diffpack.extract({"w": BASE}, {"w": tuned}, target_error=target)
    result = diffpack.load({"w": BASE}, diff)["w"]
    missed = np.linalg.norm(result.astype(np.float64) - tuned) / np.linalg.norm(tuned.astype(np.float64) - BASE)
    assert missed <= target
    assert diff.exact == bool((result.view(np.uint32) == tuned.view(np.uint32)).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [900, 2000, "2%", "20%"])
def test_a_budget_that_can_be_kept_is_kept(kind, budget):
    diff = diffpack.extract({"w": BASE}, {"w": moved(kind)}, budget=budget)
    assert diff.nbytes <= (budget if isinstance(budget, int) else int(budget[:-1]) / 100 * BASE.nbytes)


@pytest.mark.parametrize("target", [{"budget": "1MB"}, {"target_error": 0.1}])
@pytest.mark.parametrize("change", ["nothing", "integers", "signs of zeros", "a NaN", "a new tensor"])
def test_without_a_float_that_moved_the_diff_is_exact(change, target):
    base = {"w": np.zeros((20, 30), np.float32), "ids": np.arange(10, dtype=np.int32)}
    tuned = {name: value.copy() for name, value in base.items()}
    if change == "integers":
        tuned["ids"][3] = 77
    elif change == "signs of zeros":
        tuned["w"][3, :5] = -0.0
    elif change == "a NaN":
        tuned["w"][3, 3] = np.nan
    elif change == "a new tensor":
        tuned["more"] = np.ones(5, np.float32)
    diff = diffpack.extract(base, tuned, **target)
    assert diff.exact
    result = diffpack.load(base, diff)
    assert all(result[name].tobytes() == tuned[name].tobytes() for name in tuned)


def test_a_budget_for_what_must_be_exact_says_how_much_that_is():
    base, tuned = {"ids": np.arange(10, dtype=np.int32)}, {"ids": np.arange(10, dtype=np.int32)[::-1].copy()}
    needed = diffpack.extract(base, tuned).nbytes
    with pytest.raises(UsageError, match=f"a budget of 100 bytes is not enough.*take {needed}"):
        diffpack.extract(base, tuned, budget=100)


@pytest.mark.parametrize("target", [{"budget": "90%"}, {"target_error": 1e-4}])
def test_importance_does_not_stand_in_the_way_of_the_exact_diff(target):
    tuned = BASE + np.random.default_rng(2).normal(0, 0.01, SHAPE).astype(np.float32)
    weights = {"w": np.ones(SHAPE, np.float32)}
    assert diffpack.extract({"w": BASE}, {"w": tuned}, importance=weights, **target).exact


@pytest.mark.parametrize("target", [{"budget": "90%"}, {"target_error": 1e-4}])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_rank_does_not_stand_in_the_way_of_the_exact_diff(target, rank):
    tuned = BASE + np.random.default_rng(2).normal(0, 0.01, SHAPE).astype(np.float32)
    assert diffpack.extract({"w": BASE}, {"w": tuned}, rank=rank, **target).exact


def test_a_size_no_file_has_is_refused():
    with pytest.raises(UsageError, match="more than any file has"):
        diffpack.extract({"w": BASE}, {"w": BASE}, budget="9" * 400)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_errors_are_told_of_numbers_whose_squares_are_none(size):
    base, tuned = {"wide": np.zeros(100), "w": BASE}, {"wide": np.full(100, size), "w": moved("gaussian")}
    diff = diffpack.extract(base, tuned, density=0.002)
    errors = {}
    for group in diff.manifest.groups:
        errors |= dict(zip(group.names, group.errors or (), strict=True))
    result = diffpack.load(base, diff)
    missed = np.linalg.norm(result["w"] - tuned["w"]) / np.linalg.norm(tuned["w"] - base["w"])
    assert errors["w"] == pytest.approx(1e6 * missed, rel=1e-4)
    if size > 1:  # more than float32 holds: stored exactly, and nothing beside it counts
        assert np.array_equal(result["wide"], tuned["wide"])
        assert errors["wide"] == diff.manifest.error == 0
    else:
        assert not result["wide"].any()
        assert errors["wide"] == 1e6
        assert diff.manifest.error == errors["w"]

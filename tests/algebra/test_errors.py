"""What merging and rebasing miss is recorded, against numpy; where it cannot be known, the recipe says why."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from tests.tools.models import Arrays

BF16 = ml_dtypes.bfloat16
DTYPES = [np.float32, np.float16, BF16, np.float64]


def arrays(dtype: Any, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((40, 30)).astype(dtype) for name in ("w", "v")}


def moved(base: Arrays, seed: int, density: float = 0.3) -> Arrays:
    rng, tuned = np.random.default_rng(seed), {}
    for name, array in base.items():
        step = np.where(rng.random(array.shape) < density, rng.normal(0, 0.05, array.shape), 0)
        tuned[name] = (array.astype(np.float64) + step).astype(array.dtype)
    return tuned


def norm(of: list[np.ndarray[Any, Any]]) -> float:
    return float(np.sqrt(sum(np.square(item.astype(np.float64)).sum() for item in of)))


def wide(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return one.astype(np.float64) - other.astype(np.float64)


def stats(diff: diffpack.Diff) -> Any:
    return diffpack.stats(diff).diffs[0]


@pytest.mark.parametrize("values", ["f32", "f16", "int8"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_a_merge_with_its_base_says_how_far_it_is_from_what_was_merged(dtype: Any, values: str) -> None:
    base = arrays(dtype, 0)
    sides = [moved(base, 1), moved(base, 2)]
    diff = diffpack.merge([diffpack.extract(base, side) for side in sides], base=base, values=values)
    result = diffpack.load(base, diff)
    differences = {name: [wide(side[name], base[name]) for side in sides] for name in base}
    ideal = {name: base[name].astype(np.float64) + sum(differences[name]) for name in base}
    for item in stats(diff).tensors:
        expected = norm([wide(result[item.name], ideal[item.name])]) / norm([sum(differences[item.name])])
        assert item.error == pytest.approx(expected, rel=0.02, abs=2e-6)
    expected = norm([wide(result[n], ideal[n]) for n in base]) / norm([sum(differences[n]) for n in base])
    assert stats(diff).error == pytest.approx(expected, rel=0.02, abs=2e-6)
    assert diff.manifest.error is not None
    if values == "int8" or dtype == BF16:
        assert stats(diff).error > 1e-3


def test_a_merge_without_its_base_says_that_its_error_is_not_known() -> None:
    base = arrays(np.float32, 0)
    lossy = [diffpack.extract(base, moved(base, at), values="f32") for at in (1, 2)]
    diff = diffpack.merge(lossy)
    assert stats(diff).error is None
    assert diff.manifest.recipe["error"] == "not known without the base"
    assert "error" not in diffpack.merge(lossy, base=base).manifest.recipe


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_a_rebase_says_how_far_the_sums_are_from_the_change(dtype: Any) -> None:
    base = arrays(dtype, 0)
    tuned = moved(base, 1)
    onto = base | {"w": arrays(dtype, 7)["w"]}  # v is alike, and carried over bit for bit
    diff = diffpack.rebase(diffpack.extract(base, tuned), onto, base=base).diff
    result = diffpack.load(onto, diff)
    missed = wide(result["w"], onto["w"]) - wide(tuned["w"], base["w"])
    change = [wide(tuned[name], base[name]) for name in base]
    assert stats(diff).error == pytest.approx(norm([missed]) / norm(change), rel=0.02, abs=2e-6)
    by_name = {item.name: item.error for item in stats(diff).tensors}
    assert by_name["w"] == pytest.approx(norm([missed]) / norm(change[:1]), rel=0.02, abs=2e-6)
    assert by_name["v"] == 0


def test_a_rebase_of_a_lossy_diff_says_that_its_error_is_not_known() -> None:
    base = arrays(np.float32, 0)
    lossy = diffpack.extract(base, moved(base, 1), values="int8")
    diff = diffpack.rebase(lossy, arrays(np.float32, 7), base=base).diff
    assert stats(diff).error is None
    assert diff.manifest.recipe["error"] == "not known: what is carried over is lossy"


def test_an_exact_rebase_misses_nothing() -> None:
    base = arrays(np.float32, 0)
    diff = diffpack.rebase(diffpack.extract(base, moved(base, 1)), base | {"x": np.ones(3)}, base=base).diff
    assert diff.exact
    assert stats(diff).error == 0


def test_entries_that_are_not_finite_do_not_hide_the_error_of_the_others() -> None:
    base = arrays(np.float16, 0)
    base["w"][0, 0] = np.inf
    sides = [moved(base, at) for at in (1, 2)]
    for side in sides:
        side["w"][0, 0] = np.inf
    diff = diffpack.merge([diffpack.extract(base, side) for side in sides], base=base)
    assert 0 < stats(diff).error < 0.1

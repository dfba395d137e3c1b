"""Lossy codings at equal bytes: each gets what it can use, and what is committed is what was measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import budgets
from benchmarks.published import Published
from diffpack import load
from tests.tools import ROOT

CSV = ROOT / "benchmarks" / "results" / "budgets.csv"


@pytest.fixture(scope="module")
def bench():
    """A pair whose change has few directions, and a little noise."""
    rng = np.random.default_rng(0)
    base = {f"layer{at}": rng.normal(0, 1, (96, 128)).astype(np.float32) for at in range(3)}
    base["bias"] = rng.normal(0, 1, 96).astype(np.float32)
    base["still"] = rng.normal(0, 1, (64, 64)).astype(np.float32)
    tuned = dict(base)
    for name in ("layer0", "layer1", "layer2"):
        change = rng.normal(0, 0.1, (96, 6)) @ rng.normal(0, 0.1, (6, 128)) + rng.normal(0, 0.003, (96, 128))
        tuned[name] = (base[name] + change).astype(np.float32)
    return budgets.Bench(base, tuned)


@pytest.mark.parametrize(
    ("method", "few", "many"), [("delta_come", 1, 60), ("impart", 1, 60), ("ultradelta", 0.05, 1.0)]
)
def test_a_published_method_costs_more_and_errs_less_the_larger_its_number(bench, method, few, many):
    small, large = (getattr(bench.published, method)(number) for number in (few, many))
    rows = [bench.row(0, next(iter(budgets.PUBLISHED)), diff) for diff in (small, large)]
    assert small.nbytes < large.nbytes
    assert 1 > rows[0].error > rows[1].error > 0
    assert rows[1].error < 0.5


def test_a_published_method_changes_matrices_alone(bench):
    for diff in (bench.published.delta_come(2), bench.published.ultradelta(0.5)):
        result = load(bench.base, diff)
        assert all(np.array_equal(result[name], bench.base[name]) for name in ("bias", "still"))
        assert not np.array_equal(result["layer0"], bench.base["layer0"])


def test_delta_come_is_coarser_than_the_singular_vectors_it_keeps(bench):
    singular = np.linalg.svd(bench.tuned["layer0"] - bench.base["layer0"], compute_uv=False)
    result = load(bench.base, bench.published.delta_come(6))
    left = np.linalg.norm(result["layer0"] - bench.tuned["layer0"])
    assert np.linalg.norm(singular[6:]) < left < np.linalg.norm(singular[2:])


def test_sparse_vectors_keep_what_they_are_asked_to():
    rng = np.random.default_rng(0)
    change = rng.normal(0, 1, (200, 50)) * np.geomspace(1, 0.01, 50)
    found = Published({"w": np.zeros((200, 50), np.float32)}, {"w": change.astype(np.float32)})
    (record,) = found.impart(5).values()
    kept = sum(np.count_nonzero(left) for left, _ in record.factors.pairs())
    assert 0.85 * 5 * 200 < kept < 1.15 * 5 * 200


@pytest.mark.parametrize("power", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("fixed", [0, 3000])
def test_the_largest_that_fits_is_near_the_budget(power, fixed):
    def make(number):
        return SimpleNamespace(nbytes=round(fixed + 1e6 * number**power))

    found = budgets.largest_that_fits(make, 50_000, 0.001, 1.0)
    assert 49_500 <= found.nbytes <= 50_000


def test_a_method_that_cannot_use_the_bytes_gives_its_largest_and_one_that_does_not_fit_none():
    assert budgets.largest_that_fits(lambda number: SimpleNamespace(nbytes=100 * number), 1e6, 0.1, 1.0).nbytes == 100
    assert budgets.largest_that_fits(lambda number: SimpleNamespace(nbytes=2e6), 1e6, 0.1, 1.0) is None


def test_what_is_committed_holds_its_bounds_and_is_in_the_page():
    rows = budgets.read_rows(CSV)
    assert budgets.verdict(rows) == []
    assert budgets.table(rows) in (ROOT / "docs" / "budgets.md").read_text()
    measured = {(row.budget, row.method) for row in rows}
    assert all((budget, method) in measured for budget in budgets.BUDGETS for method in (budgets.OURS, budgets.GRID))

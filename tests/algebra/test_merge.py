"""Merging: the papers' formulas on dense arrays give the same, and random methods keep the expectation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.algebra.delta import Delta
from diffpack.algebra.merge import METHODS
from diffpack.algebra.merge.method import Draw, Settings
from diffpack.algebra.merge.methods.della import chances
from diffpack.errors import BaseNeededError
from tests.tools.merging import diffs_of, tuned, zeros
from tests.tools.models import bits, model, tune


def trimmed(change, density):
    flat = np.abs(change).reshape(-1)
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[: max(1, int(density * flat.size))]] = True
    return change * kept.reshape(change.shape)


def dense_ties(changes, weights, density):
    """Yadav et al. 2023, section 4.2, with weights."""
    changes = np.array([trimmed(change, density) for change in changes], np.float64)
    weighted = changes * np.array(weights).reshape(-1, *[1] * (changes.ndim - 1))
    elected = np.where(weighted.sum(0) >= 0, 1, -1)
    agree = np.sign(weighted) == elected
    counted = (agree * np.array(weights).reshape(-1, *[1] * (changes.ndim - 1))).sum(0)
    return (weighted * agree).sum(0) / np.where(counted == 0, 1, counted)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.floats(0.01, 1), st.lists(st.floats(0.1, 3), min_size=1, max_size=4), st.floats(0.05, 1)
)
def test_ties_is_the_formula_of_the_paper(seed, density, weights, changed):
    base = zeros((7, 9), (30,))
    models = [tuned(base, seed + at, changed) for at in range(len(weights))]
    found = diffpack.load(base, diffpack.merge(diffs_of(base, models), method="ties", weights=weights, density=density))
    for name in base:
        expected = dense_ties([model[name] for model in models], weights, density)
        assert np.allclose(found[name], expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.floats(-2, 2))
def test_the_default_is_the_weighted_sum(seed, weights, scale):
    base = zeros((7, 9), (30,))
    models = [tuned(base, seed + at) for at in range(len(weights))]
    diff = diffpack.merge(diffs_of(base, models), weights=weights, scale=scale)
    found = diffpack.load(base, diff)
    for name in base:
        total = scale * sum(
            weight * model[name].astype(np.float64) for weight, model in zip(weights, models, strict=True)
        )
        assert np.allclose(found[name], total, rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.permutations(range(4)),
    st.sampled_from(["task_arithmetic", "linear", "magnitude", "ties", "sce"]),
)
def test_the_order_of_the_diffs_changes_no_bit(seed, order, method):
    base = {
        name: np.random.default_rng(1).standard_normal(array.shape).astype(np.float32)
        for name, array in zeros((7, 9), (30,)).items()
    }
    models = [{name: base[name] + change for name, change in tuned(base, seed + at, 0.7).items()} for at in range(4)]
    diffs = diffs_of(base, models)
    weights = [0.1, 0.7, 0.3, 1.1] if method != "sce" else [1.0] * 4
    options = {"method": method, "density": None if method in ("task_arithmetic", "linear") else 0.4}
    first = diffpack.merge(diffs, weights=weights, **options)
    other = diffpack.merge([diffs[at] for at in order], weights=[weights[at] for at in order], **options)
    assert bits({name: record.values for name, record in first.items()}) == bits(
        {name: record.values for name, record in other.items()}
    )
    assert first.chunks == other.chunks


@pytest.mark.parametrize("values", ["exact", "f32", "f16", "bf16", "int8"])
@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "average"])
def test_one_diff_with_weight_1_is_that_diff(values, method, tmp_path):
    diff = diffpack.extract(model(), tune(model(), 0.3), tmp_path / "a.dpk", values=values, metadata={"task": "x"})
    merged = diffpack.merge([diff], tmp_path / "b.dpk", method=method, weights=[1])
    assert (tmp_path / "b.dpk").read_bytes() == (tmp_path / "a.dpk").read_bytes()
    noted = diffpack.merge([diff], method=method, metadata={"note": "y"})
    assert noted.chunks == merged.chunks
    assert noted.metadata == {"note": "y"}


@pytest.mark.parametrize("values", ["f32", "f16", "bf16", "int8"])
def test_a_diff_merged_with_one_that_changes_nothing_is_that_diff(values):
    base = model()
    diff = diffpack.extract(base, tune(base, 0.3), values=values)
    nothing = diffpack.extract(base, base, values=values)
    merged = diffpack.merge([diff, nothing])
    assert list(merged) == list(diff)
    for name, record in diff.items():
        assert np.array_equal(merged[name].positions, record.positions)
        assert np.array_equal(merged[name].values, record.values)
    assert bits(diffpack.load(base, merged)) == bits(diffpack.load(base, diff))


@pytest.mark.parametrize("profile", ["compact", "smallest"])
def test_exact_diffs_are_decoded_against_the_base(profile):
    base = model()
    models = [tune(base, 0.2, seed) for seed in (1, 2, 3)]
    exact, lossy = diffs_of(base, models, values="exact", profile=profile), diffs_of(base, models)
    with pytest.raises(BaseNeededError, match=r"give the base|against the base"):
        diffpack.merge(exact, method="ties")
    merged = diffpack.merge(exact, method="ties", base=base)
    assert not merged.exact
    assert merged.chunks == diffpack.merge(lossy, method="ties").chunks


def test_with_the_base_the_result_is_recorded_and_without_it_left_open():
    base = model()
    diffs = diffs_of(base, [tune(base, 0.2, seed) for seed in (1, 2)])
    unsealed, sealed = diffpack.merge(diffs), diffpack.merge(diffs, base=base)
    assert unsealed.version == (1, 1)
    assert sealed.version == (1, 0)
    assert unsealed.manifest.result.fingerprint is None
    arrived = diffpack.verify(unsealed, base).result
    assert arrived == sealed.manifest.result.fingerprint == diffpack.verify(sealed, base).result
    assert (unsealed.manifest.result.tensors, unsealed.manifest.result.entries, unsealed.manifest.result.bytes) == (
        sealed.manifest.result.tensors, sealed.manifest.result.entries, sealed.manifest.result.bytes,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_float_dtypes(dtype):
    base = {"w": np.random.default_rng(0).standard_normal((20, 30)).astype(dtype)}
    models = [
        {"w": (base["w"].astype(np.float64) + np.random.default_rng(seed).normal(0, 0.1, (20, 30))).astype(dtype)}
        for seed in (1, 2)
    ]
    merged = diffpack.load(base, diffpack.merge(diffs_of(base, models, values="exact"), method="average", base=base))
    middle = (models[0]["w"].astype(np.float64) + models[1]["w"].astype(np.float64)) / 2
    assert (
        np.abs(merged["w"].astype(np.float64) - middle).max()
        < {"float64": 1e-6, "float16": 4e-3, "bfloat16": 4e-2}[dtype]
    )


def test_conflicts_are_counted():
    base = zeros((6,))
    models = [
        {"t0": np.array(row, np.float32)} for row in ([1, 1, 1, 0, 0, 2], [1, -1, 0, 1, 0, 2], [-1, 0, 0, 0, 0, 2])
    ]
    recipe = diffpack.merge(diffs_of(base, models), method="ties").manifest.recipe
    assert (recipe["shared"], recipe["conflicts"]) == ("3", "2")
    assert recipe["merged"] == "3 diffs by ties"


def test_a_value_that_cancels_is_not_stored():
    base = zeros((4,))
    models = [{"t0": np.array(row, np.float32)} for row in ([1, 2, 0, 0], [-1, 2, 0, 0])]
    merged = diffpack.merge(diffs_of(base, models))
    assert merged["t0"].positions.tolist() == [1]


# Random methods


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_random_methods_keep_the_expectation(method):
    base = zeros((200, 300))
    change = {
        "t0": np.full((200, 300), 0.5, np.float32)
        + np.random.default_rng(0).normal(0, 1e-3, (200, 300)).astype(np.float32)
    }
    diffs = diffs_of(base, [change])
    runs = [diffpack.merge(diffs, method=method, density=0.3, seed=seed)["t0"] for seed in range(3)]
    for run in runs:
        assert abs(run.count / 60_000 - 0.3) < 0.01  # five standard deviations
        assert abs(run.values.sum() / change["t0"].sum() - 1) < 0.03
    assert not np.array_equal(runs[0].positions, runs[1].positions)


def test_dare_divides_what_is_left_by_the_density():
    base = zeros((5000,))
    diffs = diffs_of(base, [{"t0": np.ones(5000, np.float32)}] * 2)
    merged = diffpack.merge(diffs, method="dare_linear", density=0.25)
    assert set(np.unique(merged["t0"].values).tolist()) == {4.0, 8.0}  # one of them, or both: independent masks
    both = (merged["t0"].values == 8).sum() / 5000
    assert abs(both - 0.25**2) < 0.02
    kept = diffpack.merge(diffs, method="dare_linear", density=0.25, rescale="none")
    assert set(np.unique(kept["t0"].values).tolist()) == {1.0, 2.0}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    base = zeros((40, 50), (30,))
    diffs = diffs_of(base, [tuned(base, 1), tuned(base, 2)])
    for at, threads in enumerate((1, 4)):
        diffpack.merge(diffs, tmp_path / f"{at}.dpk", method="dare_ties", density=0.5, seed=9, threads=threads)
    assert (tmp_path / "0.dpk").read_bytes() == (tmp_path / "1.dpk").read_bytes()


def test_random_numbers_are_the_same_everywhere():
    assert Draw(1, 2, "x").uniform(2).tolist() == [0.8693112776752043, 0.8922243780254899]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(6, 10), (40,), (3, 7, 4)]))
def test_della_ranks_unchanged_entries_lowest(seed, shape):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random(shape) < 0.5, rng.standard_normal(shape), 0).astype(np.float32)
    whole = dense if len(shape) > 1 else dense[None]
    rank = np.argsort(np.argsort(np.abs(whole), axis=1, kind="stable"), axis=1, kind="stable")
    expected = (0.4 - 0.1 + 0.2 * rank / (whole.shape[1] - 1)).reshape(shape)
    places = np.flatnonzero(dense)
    found = chances(Delta(shape, places, dense.reshape(-1)[places]), Settings((1.0,), 0.4, epsilon=0.1))
    assert np.allclose(found, expected.reshape(-1)[places])


def test_half_precision_values(tmp_path):
    base = {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(ml_dtypes.bfloat16)}
    models = [{"w": (base["w"].astype(np.float32) * 1.01).astype(ml_dtypes.bfloat16)}, base]
    exact = diffs_of(base, models, values="exact")
    for values in ("f16", "bf16", "int8"):
        merged = diffpack.merge(exact, tmp_path / f"{values}.dpk", base=base, values=values)
        assert merged["w"].coding[1] == values
        expected = models[0]["w"].astype(np.float32) - base["w"].astype(np.float32)
        assert np.abs(merged["w"].to_dense() - expected).max() < 0.02 * np.abs(expected).max()


def test_every_method_names_its_source():
    for name, each in METHODS.items():
        assert each.name == name
        assert len(each.source) > 10


def test_diffs_of_a_byte_budget_are_merged_and_compared():
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((200, 100)).astype(np.float32)}
    tuned = [{"w": base["w"] + rng.normal(0, 0.01, (200, 100)).astype(np.float32)} for _ in range(2)]
    first, second = (diffpack.extract(base, side, budget=6000) for side in tuned)
    merged = diffpack.merge([first, second], weights=(0.5, 0.25))
    expected = 0.5 * first["w"].to_dense().astype(np.float64) + 0.25 * second["w"].to_dense()
    assert np.allclose(merged["w"].to_dense(), expected, rtol=1e-6, atol=0)
    assert diffpack.compare(first, second).total.jaccard < 1
    assert diffpack.compare(first, first).total.cosine == pytest.approx(1)

"""Lossy diffs: what is chosen, how it is rounded, and that the file says so."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import UsageError
from diffpack.format.values.int8 import INT8
from tests.tools.models import bits, model, tune


def both(size=50_000, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    base = {
        "a": rng.standard_normal(size).astype(dtype),
        "b": rng.standard_normal((size // 100, 10)).astype(dtype),
    }
    tuned = {name: (w + rng.normal(0, 0.01, w.shape)).astype(dtype) for name, w in base.items()}
    return base, tuned


@pytest.mark.parametrize("values", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_are_added_in_float32_and_rounded_once(values, dtype):
    base, tuned = both(2000, dtype=np.dtype(dtype))
    diff = diffpack.extract(base, tuned, values=values)
    assert not diff.exact
    wide = np.float64 if dtype == "float64" else np.float32
    stored = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[values]
    for name, array in diffpack.load(base, diff).items():
        value = (tuned[name].astype(wide) - base[name].astype(wide)).astype(stored).astype(np.float32)
        assert np.array_equal(array, (base[name].astype(wide) + value).astype(dtype))


def test_int8_values_are_multiples_of_the_scale():
    base, tuned = both()
    diff = diffpack.extract(base, tuned, values="int8", density=0.1)
    for record in diff.values():
        multiples = record.values / record.scale
        assert np.array_equal(np.rint(multiples).astype(np.float32) * record.scale, record.values)
        assert np.abs(multiples).max() <= 127


@given(st.integers(0, 2**32), st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_the_int8_scale_minimises_the_squared_error(seed, size):
    values = (np.random.default_rng(seed).standard_normal(4000) * size).astype(np.float32)

    def error(scale):
        return np.square(INT8.differences(INT8.numbers(values, np.float32(scale)), np.float32(scale)) - values).sum()

    best = INT8.best_scale(values)
    assert all(error(best) <= 1.01 * error(best * factor) for factor in (0.5, 0.8, 0.9, 1.1, 1.25, 2.0))


def test_tensors_of_other_magnitude_keep_their_own_scale():
    base, tuned = both()
    tuned["b"] = (base["b"] + 1000 * (tuned["b"] - base["b"])).astype(np.float32)
    diff = diffpack.extract(base, tuned, values="int8")
    ratio = diff["b"].scale / diff["a"].scale
    assert 300 < ratio < 3000
    assert np.log2(ratio) == round(np.log2(ratio))


@given(st.integers(0, 55_000), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_top_k_is_the_k_largest_over_the_whole_model(k, seed):
    base, tuned = both(seed=seed)
    tuned["a"][:20_000] = base["a"][:20_000]
    diff = diffpack.extract(base, tuned, top_k=k, values="exact")
    delta = np.concatenate([np.abs(tuned[name] - base[name]).reshape(-1) for name in ("a", "b")])
    chosen = np.concatenate([diff["a"].positions, diff["b"].positions + 50_000])
    expected = min(k, np.count_nonzero(delta))
    assert chosen.size == expected
    if expected:
        assert delta[chosen].min() == np.sort(delta)[-expected]


def test_equal_magnitudes_are_taken_in_order():
    base = {"w": np.zeros(1000, np.float32)}
    tuned = {"w": np.tile(np.array([1, -1], np.float32), 500)}
    assert diffpack.extract(base, tuned, top_k=7)["w"].positions.tolist() == list(range(7))


def test_density_counts_all_float_entries():
    base, tuned = both()
    base["unchanged"] = tuned["unchanged"] = np.ones(10_000, np.float32)
    diff = diffpack.extract(base, tuned, density=0.01, values="f16")
    assert sum(record.count for record in diff.values()) == 650


def test_chosen_entries_with_exact_values_are_the_tuned_bits():
    base, tuned = both()
    diff = diffpack.extract(base, tuned, density=0.01)
    assert not diff.exact
    restored = diffpack.load(base, diff)
    for name, record in diff.items():
        where = record.positions
        assert np.array_equal(restored[name].reshape(-1)[where], tuned[name].reshape(-1)[where])
        rest = np.setdiff1d(np.arange(base[name].size), where)
        assert np.array_equal(restored[name].reshape(-1)[rest], base[name].reshape(-1)[rest])


def test_threshold_keeps_differences_at_or_above_it():
    base = {"w": np.zeros(5, np.float32)}
    tuned = {"w": np.array([0.5, -0.5, 0.49, 2, 0], np.float32)}
    assert diffpack.extract(base, tuned, threshold=0.5)["w"].positions.tolist() == [0, 1, 3]


def test_differences_that_are_not_finite_stay_exact():
    base, tuned = both(1000)
    tuned["a"][5] = np.nan
    tuned["b"][0, 0] = 1e6  # more than float16 holds
    for options in ({"density": 0.01}, {"values": "f16"}, {"values": "int8"}):
        restored = diffpack.load(base, diffpack.extract(base, tuned, **options))
        assert bits({"a": restored["a"]}) == bits({"a": tuned["a"]})
    assert bits(diffpack.load(base, diffpack.extract(base, tuned, values="f16"))) == bits(tuned)


def test_integers_and_new_tensors_stay_exact():
    base, tuned = model(), tune(model())
    tuned["ids"] = tuned["ids"][::-1].copy()
    tuned["head"] = np.ones((3, 16), np.float32) / 3
    restored = diffpack.load(base, diffpack.extract(base, tuned, density=0, values="int8"))
    assert bits(restored) == bits(base | {"ids": tuned["ids"], "head": tuned["head"]})


def test_the_recorded_result_is_what_apply_arrives_at():
    base, tuned = both()
    diff = diffpack.extract(base, tuned, values="bf16", threshold=0.01)
    assert diffpack.fingerprint(diffpack.load(base, diff)) == diff.manifest.result.fingerprint
    assert diff.manifest.recipe == {"select": "threshold 0.01", "values": "bf16"}


@pytest.mark.parametrize(
    "options",
    [
        {"density": 0.1, "top_k": 5}, {"density": 1.5}, {"density": float("nan")}, {"top_k": -1},
        {"threshold": float("nan")}, {"values": "f8"}, {"profile": "tiny"},
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(UsageError):
        diffpack.extract({}, {}, **options)


def test_infinities_that_lossy_values_make_are_told_when_they_are_made():
    """A step for all entries of a tensor carries one that stood next to the last number over it."""
    base = {"w": np.ones((64, 64), np.float16)}
    tuned = {"w": base["w"] + np.float16(64)}
    base["w"][0, 0], tuned["w"][0, 0] = 65472, np.finfo(np.float16).max
    opened, into = diffpack.open_checkpoint(base), diffpack.open_checkpoint(tuned)
    diff = diffpack.extract(opened, into, values="sign")
    made = int(np.count_nonzero(np.isinf(diffpack.load(base, diff)["w"])))
    assert made > 0
    assert [note for note in into.notes if "infinite" in note] == [
        f"{made} of the result's entries are infinite: sums beyond what their dtype holds, in w ({made})"
    ]
    told = diffpack.open_checkpoint(base)
    diffpack.load(told, diff)
    assert told.notes == into.notes  # apply says the same
    exact = diffpack.open_checkpoint(tuned)
    diffpack.extract(base, exact)
    assert exact.notes == []


@pytest.mark.parametrize("options", [{"density": "0.5%"}, {"top_k": "3"}, {"threshold": None, "density": [0.5]}])
def test_words_where_numbers_should_be_are_refused(options):
    with pytest.raises(UsageError, match="density, top-k and threshold are numbers, not"):
        diffpack.extract(model(), tune(model()), **options)

"""The float differences of every kind of record are those of the result and the reference."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError, UnsupportedCheckpointError, UsageError, WrongBaseError
from diffpack.tensors.dtypes import array_words, from_numpy
from tests.tools import ROOT

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def random(seed: int, shape: Any, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) + 3).astype(dtype)


def wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


def words_of(array: np.ndarray[Any, Any]) -> Any:
    dtype = from_numpy(array.dtype)
    assert dtype is not None
    return array_words(array, dtype)


def dense(found: Any, shape: Any) -> np.ndarray[Any, Any]:
    """The differences as an array; their positions must be sorted and unique."""
    positions, values = found
    assert positions.dtype == np.int64
    assert (np.diff(positions) > 0).all()
    flat = np.zeros(int(np.prod(shape)), values.dtype)
    flat[positions] = values
    return flat.reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", ["gaps", "all", "levels", "auto"])
@pytest.mark.parametrize("profile", ["compact", "smallest"])
def test_exact_changes_are_the_differences_of_the_numbers(dtype, positions, profile):
    base, tuned = {"w": random(0, (64, 80), dtype)}, {"w": random(0, (64, 80), dtype)}
    tuned["w"][::3] *= dtype(1.125)
    record = diffpack.extract(base, tuned, positions=positions, profile=profile)["w"]
    expected = wide(tuned["w"]) - wide(base["w"])
    for given in (base["w"], words_of(base["w"])):
        found = record.differences(given)
        assert found.values.dtype == expected.dtype
        assert np.array_equal(dense(found, (64, 80)), expected)


@pytest.mark.parametrize("values", ["f32", "f16", "bf16", "int8", "int4"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lossy_values_are_given_as_they_are_stored(values, dtype):
    base = {"w": random(0, (40, 20), dtype)}
    tuned = {"w": base["w"] * dtype(1.25)}
    record = diffpack.extract(base, tuned, values=values, density=0.5)["w"]
    found = record.differences()
    assert found.values.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert np.array_equal(found.positions, record.positions)
    assert np.array_equal(found.values, record.values)
    assert found.values.any()


@pytest.mark.parametrize("positions", ["gaps", "levels"])
def test_differences_are_those_of_the_loaded_result(positions):
    base = {"w": random(0, (200, 100)), "v": random(1, (300,))}
    tuned = {name: array + random(9, array.shape) / 64 for name, array in base.items()}
    options = {"budget": "20%"} if positions == "levels" else {"values": "f32", "density": 0.3}
    diff = diffpack.extract(base, tuned, **options)
    restored = diffpack.load(base, diff)
    for name, record in diff.items():
        change = dense(record.differences(base[name]), base[name].shape)
        assert np.array_equal(restored[name], base[name] + change)


@pytest.mark.parametrize("rule", ["smallest", "largest", "random 7"])
def test_entries_that_a_rule_tells(rule):
    base = {"w": random(0, (50, 40))}
    diff = diffpack.extract(base, {"w": base["w"] + 1}, rule=rule, density=0.1, values="f32")
    if rule == "random 7":
        assert diff["w"].differences().positions.size == 200
    else:
        with pytest.raises(BaseNeededError):
            diff["w"].differences()
    found = diff["w"].differences(base["w"])
    assert found.positions.size == 200
    assert np.allclose(found.values, 1)


def test_new_resized_and_retyped_tensors():
    base = {"grown": random(0, (10, 4)), "cast": random(1, (30, 5)), "was": random(2, (100,))}
    tuned = {
        "grown": np.concatenate([base["grown"] + 1, random(3, (2, 4))]),
        "cast": (base["cast"] * 2).astype(ml_dtypes.bfloat16),
        "new": random(4, (7, 3)),
        "was": base["was"] + 1,
    }
    diff = diffpack.extract(base, tuned)
    assert {name: record.kind for name, record in diff.items()} == {
        "grown": "resized", "cast": "retyped", "new": "new", "was": "changed",
    }  # fmt: skip
    before = np.zeros((12, 4), np.float32)
    before[:10] = base["grown"]
    assert np.array_equal(dense(diff["grown"].differences(base["grown"]), (12, 4)), tuned["grown"] - before)
    before = wide(base["cast"].astype(ml_dtypes.bfloat16))
    assert np.array_equal(dense(diff["cast"].differences(base["cast"]), (30, 5)), wide(tuned["cast"]) - before)
    assert np.array_equal(dense(diff["new"].differences(), (7, 3)), tuned["new"])


def test_zeros_infinities_and_numbers_that_are_none():
    base = np.array([0.0, 1.0, np.inf, np.nan, np.inf], np.float32)
    tuned = np.array([-0.0, np.inf, np.inf, np.nan, 1.0], np.float32)
    record = diffpack.extract({"w": base}, {"w": tuned}, positions="all")["w"]
    assert dense(record.differences(base), 5).tolist() == [0, np.inf, 0, 0, -np.inf]


def test_a_record_of_a_bound_diff_needs_no_words():
    base = {"w": random(0, (64, 80)), "v": random(1, (64, 80))}
    tuned = {name: array * np.float32(1.01) for name, array in base.items()}
    diff = diffpack.extract(base, tuned, profile="smallest")
    bound = diff.against(base)
    for name in base:
        assert np.array_equal(dense(bound[name].differences(), (64, 80)), tuned[name] - base[name])


def test_words_coded_among_those_of_other_tensors_need_the_whole_base():
    rng = np.random.default_rng(0)
    base = {name: (rng.standard_normal((256, 256)) / 50).astype(ml_dtypes.bfloat16) for name in "vw"}
    step = np.float32(2e-5)  # half a unit in the last place of small entries: they change, large ones do not
    tuned = {
        name: (wide(array) + step * rng.standard_normal(array.shape)).astype(array.dtype)
        for name, array in base.items()
    }
    diff = diffpack.extract(base, tuned, profile="smallest", positions="levels")
    assert "exponent" in diff.contexts("w")
    with pytest.raises(BaseNeededError, match=r"diff\.against\(base\)\[name\]\.differences"):
        diff["w"].differences(base["w"])
    assert diff.against(base)["w"].differences().positions.size


def test_what_is_no_base_tensor_is_refused():
    torch = pytest.importorskip("torch")
    base = {"w": random(0, (20, 10)), "n": np.arange(9)}
    diff = diffpack.extract(base, {"w": base["w"] + 1, "n": base["n"] + 1})
    record = diff["w"]
    assert record.differences(torch.from_numpy(base["w"])).positions.size == 200
    with pytest.raises(BaseNeededError, match="w is stored as steps"):
        record.differences()
    with pytest.raises(WrongBaseError, match="not the base tensor the diff was made from"):
        record.differences(base["w"] + 1)
    with pytest.raises(WrongBaseError, match=r"F64\[20, 10\], not F32\[20, 10\]"):
        record.differences(base["w"].astype(np.float64))
    with pytest.raises(WrongBaseError, match=r"F32\[10, 20\], not F32\[20, 10\]"):
        record.differences(base["w"].T)
    with pytest.raises(UnsupportedCheckpointError, match="'w' is a dict"):
        record.differences({"w": base["w"]})
    with pytest.raises(UsageError, match="n: I64 has no float differences"):
        diff["n"].differences(base["n"])


def test_classes_of_older_files():
    folder = ROOT / "fixtures" / "v1.0"
    base = diffpack.load(folder / "classes.base.safetensors", folder / "classes.dpk", names="result")
    diff = diffpack.open(folder / "classes.dpk")
    bound = diff.against(folder / "classes.base.safetensors")
    before = diffpack.open_checkpoint(folder / "classes.base.safetensors")
    for name, record in bound.items():
        found = record.differences()
        assert found.positions.size == record.count
        assert np.array_equal(wide(base[name]).reshape(-1)[found.positions], _after(before.words(name), found, record))


def _after(words: Any, found: Any, record: Any) -> Any:
    from diffpack.tensors.dtypes import to_float

    return to_float(words, record.info.dtype)[found.positions] + found.values

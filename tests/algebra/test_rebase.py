"""The change a diff makes, on another base."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError, UsageError, WrongBaseError
from tests.tools.models import bits, model, tune


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("profile", ["compact", "smallest"])
def test_float_differences_are_added_to_the_other_base(dtype, profile):
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((50, 40)).astype(dtype)}
    tuned, onto = (
        {"w": (base["w"].astype(np.float64) + rng.normal(0, size, (50, 40))).astype(dtype)} for size in (0.02, 0.1)
    )
    diff = diffpack.extract(base, tuned, profile=profile)
    rebased = diffpack.rebase(diff, onto, base=base)
    wide = np.float64 if dtype is np.float64 else np.float32
    delta = (tuned["w"].astype(wide) - base["w"].astype(wide)).astype(np.float32)
    found = diffpack.load(onto, rebased.diff)
    assert np.array_equal(found["w"], (onto["w"].astype(wide) + delta).astype(dtype))
    assert not rebased.diff.exact
    assert (rebased.exact, rebased.as_floats, rebased.left_out) == ((), ("w",), {})


def test_onto_the_same_base_it_is_the_same_diff():
    base, tuned = model(), tune(model(), 0.2)
    del tuned["ids"]
    tuned["new"] = np.ones(3, np.float32)
    diff = diffpack.extract(base, tuned)
    rebased = diffpack.rebase(diff, base)
    assert rebased.diff.exact
    assert rebased.diff.chunks == diff.chunks
    assert rebased.diff.manifest.result.fingerprint == diff.manifest.result.fingerprint
    assert bits(diffpack.load(base, rebased.diff)) == bits(tuned)


def test_tensors_both_bases_have_alike_are_carried_over_bit_for_bit():
    base, tuned = model(), tune(model(), 0.2)
    onto = base | {"embed": base["embed"] + np.float32(0.25)}
    diff = diffpack.extract(base, tuned)
    with pytest.raises(BaseNeededError, match="embed"):
        diffpack.rebase(diff, onto)
    rebased = diffpack.rebase(diff, onto, base=base)
    assert rebased.as_floats == ("embed",)
    found = diffpack.load(onto, rebased.diff)
    assert bits({name: found[name] for name in rebased.exact}) == bits({name: tuned[name] for name in rebased.exact})
    assert np.allclose(found["embed"], tuned["embed"] + 0.25)


@pytest.mark.parametrize("values", ["f32", "f16", "int8"])
def test_lossy_values_are_carried_over_as_they_are(values):
    base, tuned = model(), tune(model(), 0.2)
    onto = tune(base, 1.0, 9)
    diff = diffpack.extract(base, tuned, values=values)
    rebased = diffpack.rebase(diff, onto)
    for name, record in diff.items():
        assert np.array_equal(rebased.diff[name].values, record.values)
    diffpack.verify(rebased.diff, onto)


def test_what_cannot_be_carried_over_is_said():
    base, tuned = model(), tune(model(), 0.2)
    tuned["ids"] = tuned["ids"] + 1
    onto = {name: array for name, array in base.items() if name != "encoder.0.bias"}
    onto["ids"] = base["ids"] * 2
    onto["embed"] = base["embed"][:50]
    rebased = diffpack.rebase(diffpack.extract(base, tuned), onto, base=base)
    assert set(rebased.left_out) == {"encoder.0.bias", "ids", "embed"}
    assert rebased.left_out["encoder.0.bias"] == "missing"
    assert rebased.left_out["embed"] == "is F32[50, 16], not F32[100, 16]"
    assert "I64" in rebased.left_out["ids"]
    assert not rebased.diff.exact
    found = diffpack.load(onto, rebased.diff)
    assert bits({name: found[name] for name in ("ids", "embed")}) == bits(
        {name: onto[name] for name in ("ids", "embed")}
    )


def test_new_removed_and_tied_tensors_come_along():
    base, tuned = model(), tune(model(), 0.2)
    tuned["head"] = np.full((2, 3), 0.1, np.float32)
    tuned["tied"] = tuned["embed"].copy()
    del tuned["ids"]
    onto = tune(base, 0.5, 4)
    rebased = diffpack.rebase(diffpack.extract(base, tuned), onto, base=base)
    found = diffpack.load(onto, rebased.diff)
    assert "ids" not in found
    assert np.array_equal(found["head"], tuned["head"])
    assert np.array_equal(found["tied"], found["embed"])
    manifest = rebased.diff.manifest
    assert manifest.result.tensors == len(found)
    assert manifest.result.bytes == sum(array.nbytes for array in found.values())


def test_refusals(tmp_path):
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk")
    with pytest.raises(WrongBaseError):
        diffpack.rebase(diff, base, base=tuned)
    with pytest.raises(UsageError):
        diffpack.rebase(tmp_path / "d.dpk", base, tmp_path / "d.dpk", force=True)


def test_differences_float32_cannot_hold_are_left_out_and_said():
    base = {"wide": np.zeros(9), "odd": np.zeros(9, np.float32), "w": np.zeros(9, np.float32)}
    tuned = {"wide": np.full(9, 1e200), "odd": np.full(9, np.nan, np.float32), "w": np.ones(9, np.float32)}
    onto = {name: value + value.dtype.type(1) for name, value in base.items()}
    rebased = diffpack.rebase(diffpack.extract(base, tuned), onto, base=base)
    assert rebased.left_out == dict.fromkeys(["odd", "wide"], "changes by more than float32 holds")
    found = diffpack.load(onto, rebased.diff)
    assert bits(found) == bits(onto | {"w": onto["w"] + np.float32(1)})


def test_a_tensor_tied_to_one_that_is_left_out_stays_as_it_is():
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in "ab"}
    shared = rng.standard_normal((8, 8)).astype(np.float32)
    diff = diffpack.extract(base, {"a": shared, "b": shared})
    assert diff.manifest.aliases == {"b": "a"}
    onto = {"a": np.ones((4, 4), np.float32), "b": np.ones((8, 8), np.float32)}
    rebased = diffpack.rebase(diff, onto, base=base)
    assert rebased.left_out == {"a": "is F32[4, 4], not F32[8, 8]", "b": "tied to a, which is left out"}
    assert bits(diffpack.load(onto, rebased.diff)) == bits(onto)


def test_a_tie_to_a_tensor_of_another_shape_is_left_out():
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in "ab"}
    diff = diffpack.extract(base, base | {"b": base["a"]})
    onto = {"a": np.ones((4, 4), np.float32), "b": np.ones((8, 8), np.float32)}
    rebased = diffpack.rebase(diff, onto, base=base)
    assert rebased.left_out == {"b": "is F32[8, 8], and tied to a, which is F32[4, 4]"}
    assert bits(diffpack.load(onto, rebased.diff)) == bits(onto)


def test_a_diff_of_a_budget_is_carried_over_chunk_for_chunk():
    base = {"w": np.random.default_rng(0).standard_normal((80, 60)).astype(np.float32)}
    tuned = {"w": base["w"] + np.random.default_rng(1).normal(0, 0.01, (80, 60)).astype(np.float32)}
    diff = diffpack.extract(base, tuned, budget="10%")
    rebased = diffpack.rebase(diff, base, base=base).diff
    assert rebased.chunks == diff.chunks
    assert rebased.manifest.recipe["values"] == "grid"
    assert bits(diffpack.load(base, rebased)) == bits(diffpack.load(base, diff))

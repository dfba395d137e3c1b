"""Sums that the result's dtype cannot hold are refused by name, or end at its largest finite number where asked."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.algebra.sums import Sums
from diffpack.diff.entries import Entry
from diffpack.diff.group_decoder import Changes
from diffpack.errors import BaseNeededError, UsageError
from diffpack.format.values.floats import BF16, F16, F32
from diffpack.format.values.int8 import INT8
from diffpack.result.overflow import largest_finite, made_infinite, not_finite
from diffpack.tensors.dtypes import DTYPES, array_words, from_float, from_numpy, to_float
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference
from tests.tools.merging import diffs_of
from tests.tools.models import bits

BF = np.dtype(ml_dtypes.bfloat16)
LAST = {
    np.dtype(kind): float(info(kind).max)
    for kind, info in ((np.float16, np.finfo), (BF, ml_dtypes.finfo), (np.float32, np.finfo), (np.float64, np.finfo))
}


@pytest.mark.parametrize("dtype", LAST, ids=str)
def test_the_largest_number_of_each_dtype(dtype):
    kind = from_numpy(dtype)
    assert largest_finite(kind) == LAST[dtype]
    values = np.array([0, 1, -LAST[dtype], LAST[dtype], np.inf, -np.inf, np.nan], dtype)
    assert not_finite(array_words(values, kind), kind).tolist() == [False] * 4 + [True] * 3


def models(dtype, top):
    """A base near the end of a dtype, and two tuned models that are nearer; one entry of one is infinite already."""
    rng = np.random.default_rng(0)
    base = {"w": (top * (0.9 + 0.05 * rng.random((8, 8)))).astype(dtype), "v": np.ones(5, dtype)}
    base["w"][0] *= -1
    tuned = [
        {"w": (base["w"].astype(np.float64) * factor).astype(dtype), "v": base["v"] * 2} for factor in (1.04, 1.03)
    ]
    return base, tuned


DTYPES_WITH_AN_END = pytest.mark.parametrize("dtype", [np.dtype(np.float16), BF, np.dtype(np.float32)], ids=str)


@DTYPES_WITH_AN_END
def test_a_merge_beyond_a_dtype_is_refused_by_name(dtype, tmp_path):
    base, tuned = models(dtype, LAST[dtype])
    assert all(np.isfinite(each["w"].astype(np.float64)).all() for each in tuned)
    diffs = diffs_of(base, tuned, values="exact")
    with pytest.raises(
        UsageError, match=r"w: \d+ \w+ entries, up to [\d.e+]+ where .* is the last: .*--clip"
    ) as caught:
        diffpack.merge(diffs, tmp_path / "m.dpk", base=base)
    assert "v: " not in str(caught.value)
    assert not (tmp_path / "m.dpk").exists()
    wide = [each["w"].astype(np.float64) - base["w"].astype(np.float64) for each in tuned]
    beyond = np.abs(base["w"].astype(np.float64) + sum(wide))
    with np.errstate(over="ignore"):
        count = int((~np.isfinite(beyond.astype(dtype).astype(np.float64))).sum())
    assert f"w: {count} " in str(caught.value)
    assert f"up to {beyond.max():g}"[:9] in str(caught.value)


@DTYPES_WITH_AN_END
@pytest.mark.parametrize("values", ["f32", "bf16"])
def test_a_merge_that_is_clipped_ends_at_the_largest_number(dtype, values, tmp_path):
    base, tuned = models(dtype, LAST[dtype])
    diffs, notes = diffs_of(base, tuned, values="exact"), []
    merged = diffpack.merge(diffs, tmp_path / "m.dpk", base=base, clip=True, values=values, notes=notes)
    found = diffpack.load(base, merged)["w"].astype(np.float64)
    plain = base["w"].astype(np.float64) + sum(
        each["w"].astype(np.float64) - base["w"].astype(np.float64) for each in tuned
    )
    with np.errstate(over="ignore"):
        over = ~np.isfinite(plain.astype(dtype).astype(np.float64))
    assert over.any()
    assert np.isfinite(found).all()
    if values == "f32":
        assert np.array_equal(np.abs(found[over]), np.full(over.sum(), LAST[dtype]))
    assert (np.sign(found[over]) == np.sign(plain[over])).all()
    assert (np.abs(found[over]) >= 0.98 * LAST[dtype]).all()
    assert merged.manifest.recipe["clipped"] == f"{over.sum()} entries"
    assert len(notes) == 1
    assert "clipped" in notes[0]
    assert "w (" in notes[0]
    diffpack.verify(merged, base)
    again = diffpack.merge(diffs, base=base, clip=True, values=values, threads=1)
    assert again.chunks == merged.chunks


def test_what_is_finite_is_not_touched_by_clip():
    base = {"w": np.linspace(-1, 1, 50).astype(np.float16)}
    diffs = diffs_of(base, [{"w": base["w"] * np.float16(factor)} for factor in (1.5, 2)], values="exact")
    plain, clipped = (diffpack.merge(diffs, base=base, clip=clip) for clip in (False, True))
    assert plain.chunks == clipped.chunks
    assert plain.manifest == clipped.manifest


def test_new_tensors_are_sums_from_zero():
    base = {"w": np.zeros(3, np.float16)}
    tuned = [base | {"new": np.full(4, 60000, np.float16)} for _ in range(2)]
    diffs = diffs_of(base, tuned)
    same = diffpack.merge(diffs)
    assert np.isfinite(diffpack.load(base, same)["new"]).all()  # the same in both, and no sum
    diffs[1] = diffpack.extract(base, base | {"new": np.full(4, -60000, np.float16)}, values="f32")
    with pytest.raises(UsageError, match="new: 4 F16 entries, up to 300000"):
        diffpack.merge(diffs, weights=[3, -2], mix=["new"])
    clipped = diffpack.merge(diffs, weights=[3, -2], base=base, clip=True, mix=["new"])
    assert (diffpack.load(base, clipped)["new"] == np.float16(65504)).all()


def test_infinite_entries_of_a_tuned_model_stay():
    """Exact changes are no sums; taken over, or of a tensor the merge leaves alone, they are given back."""
    base = {"w": np.ones(4, np.float16), "n": np.arange(4)}
    tuned = {"w": np.array([1, np.inf, np.nan, 2], np.float16), "n": np.arange(4)}
    diff = diffpack.extract(base, tuned)
    assert bits(diffpack.load(base, diffpack.merge([diff], base=base))) == bits(tuned)
    other = {"w": base["w"] * 2, "n": np.arange(4)}
    onto = diffpack.rebase(diff, {"w": base["w"], "n": other["n"] + 1}, base=base)
    assert bits({"w": diffpack.load({"w": base["w"], "n": other["n"] + 1}, onto.diff)["w"]}) == bits({"w": tuned["w"]})
    infinite = {"w": np.array([np.inf, 1], np.float16)}
    moved = diffs_of(infinite, [{"w": np.array([np.inf, 2], np.float16)}] * 2)
    assert np.isinf(diffpack.load(infinite, diffpack.merge(moved, base=infinite))["w"][0])


def test_without_the_base_it_is_said_that_nothing_was_checked():
    base, tuned = models(np.dtype(np.float16), 65504.0)
    diffs, notes = diffs_of(base, tuned), []
    merged = diffpack.merge(diffs, notes=notes)
    assert merged.manifest.recipe["overflow"].startswith("not checked")
    assert "not checked" in notes[0]
    with pytest.raises(BaseNeededError, match="clip"):
        diffpack.merge(diffs, clip=True)
    checked = diffpack.merge([diffs[0], diffpack.extract(base, base, values="f32")], base=base)
    assert "overflow" not in checked.manifest.recipe


def test_apply_says_how_many_entries_become_infinite(tmp_path):
    base, tuned = models(np.dtype(np.float16), 65504.0)
    merged = diffpack.merge(diffs_of(base, tuned))
    checkpoint = diffpack.open_checkpoint(base)
    diffpack.apply(checkpoint, merged, tmp_path / "out.safetensors")
    found = diffpack.load(base, merged)
    count = int(np.isinf(found["w"]).sum())
    assert count
    assert [note for note in checkpoint.notes if "infinite" in note] == [
        f"{count:,} of the result's entries are infinite: sums beyond what their dtype holds, in w ({count:,})"
    ]
    quiet = diffpack.open_checkpoint(base)
    diffpack.apply(quiet, diffpack.extract(base, {**base, "w": found["w"]}), tmp_path / "exact.safetensors")
    assert quiet.notes == []


@DTYPES_WITH_AN_END
def test_a_rebase_beyond_a_dtype(dtype):
    top = LAST[dtype]
    base, tuned = {"w": np.zeros(6, dtype)}, {"w": (np.full(6, top) / 4).astype(dtype)}
    onto = {"w": (np.linspace(-1, 1, 6) * top).astype(dtype)}
    for values in ("exact", "f32", "bf16"):
        diff = diffpack.extract(base, tuned, values=values)
        with pytest.raises(UsageError, match=r"rebase: .* w: 1 \w+ entries, up to"):
            diffpack.rebase(diff, onto, base=base)
        rebased = diffpack.rebase(diff, onto, base=base, clip=True)
        found = diffpack.load(onto, rebased.diff)["w"].astype(np.float64)
        assert np.isfinite(found).all()
        assert found[-1] == top
        assert rebased.diff.manifest.recipe["clipped"] == "1 entry"
        assert any("clipped" in note for note in rebased.notes)


def test_a_base_that_a_narrower_dtype_cannot_hold_is_left_out():
    base = {"w": np.ones(4, np.float32)}
    diff = diffpack.extract(base, {"w": np.full(4, 2, np.float16)})
    onto = {"w": np.array([1, 2, 3, 1e6], np.float32)}
    rebased = diffpack.rebase(diff, onto, base=base)
    assert rebased.left_out == {"w": "has entries that are more than F16 holds"}
    assert bits(diffpack.load(onto, rebased.diff)) == bits(onto)


@settings(max_examples=300)
@given(
    st.sampled_from([F32, F16, BF16, INT8]), st.sampled_from(["F16", "BF16", "F32"]), st.booleans(),
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=1, max_size=12),
)  # fmt: skip
def test_clipped_values_end_at_the_last_number_or_as_near_as_their_coding_can(coding, name, dense, pairs):
    """For any reference and value of every coding: finite, of the right sign, and one step more would be infinite."""
    dtype = DTYPES[name]
    last = largest_finite(dtype)
    before = from_float(np.array([one for one, _ in pairs]) * last, dtype)
    reach = min(last, largest_finite(coding.stored)) if coding is not INT8 else last
    scale = np.float32(reach / 128) if coding is INT8 else np.float32(0)
    numbers = coding.numbers(np.array([two for _, two in pairs]) * reach, scale)
    numbers = np.where(coding.effective(numbers), numbers, numbers.dtype.type(0))
    info = TensorInfo(dtype, (len(pairs),))
    positions = None if dense else np.arange(len(pairs))
    entry = Entry("w", info, info, b"", None, (Changes(0, len(pairs), positions, numbers),), coding, scale)
    reference = Reference(info, info, before)
    seen, clipping = Sums(clip=False), Sums(clip=True)
    assert seen.entry(entry, reference) is entry
    (part,) = clipping.entry(entry, reference).parts
    assert seen.found == clipping.found
    plain = coding.change(before, numbers, dtype, scale)
    over = made_infinite(before, plain, dtype)
    assert over.sum() == sum(item.entries for item in seen.found.values())
    assert np.array_equal(part.numbers[~over], numbers[~over])
    ended = to_float(coding.change(before, part.numbers, dtype, scale), dtype).astype(np.float64)
    assert np.isfinite(ended[over]).all()
    assert (
        ended[over] * np.sign(numbers[over].astype(np.int64))
        >= to_float(before, dtype)[over] * np.sign(numbers[over].astype(np.int64))
    ).all()
    further = part.numbers + np.sign(numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = to_float(coding.change(before, further.astype(numbers.dtype), dtype, scale), dtype)
    assert (np.isinf(beyond[over]) | (np.abs(ended[over]) == last)).all()

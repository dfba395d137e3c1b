"""An exact diff gives every tensor back, bit for bit, whatever the tensors are."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.tensors.dtypes import _ML_DTYPES, _NUMPY, DTYPES, numpy_dtype
from tests.tools.models import bits, model, tune

ARRAY_DTYPES = [numpy_dtype(DTYPES[name]) for name in (*_NUMPY, *_ML_DTYPES)]


def check(base, tuned, **options):
    diff = diffpack.extract(base, tuned, **options)
    assert diff.exact
    assert bits(diffpack.load(base, diff)) == bits(tuned)
    diffpack.verify(diff, base)
    return diff


@st.composite
def arrays(draw):
    """Any bit pattern in any dtype and shape."""
    dtype = draw(st.sampled_from(ARRAY_DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if dtype == np.bool_:
        raw = raw & 1
    return raw.copy().view(dtype).reshape(shape)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, arrays(), max_size=4), st.dictionaries(names, arrays(), max_size=4), st.data())
def test_any_two_checkpoints(base, tuned, data):
    for name in data.draw(st.sets(st.sampled_from(sorted(base)) if base else st.nothing())):
        tuned[name] = base[name].copy()
        flat = tuned[name].reshape(-1).view(np.uint8)
        if flat.size and tuned[name].dtype != np.bool_:
            flat[data.draw(st.integers(0, flat.size - 1))] ^= data.draw(st.integers(0, 255))
    profile = data.draw(st.sampled_from(["compact", "portable", "smallest"]))
    positions = data.draw(st.sampled_from(["auto", "gaps", "all", "levels"]))
    check(base, tuned, profile=profile, positions=positions, rename=(), allow_removed=True)


@pytest.mark.parametrize("density", [0, 0.001, 0.02, 0.1, 0.3, 0.6, 1])
@pytest.mark.parametrize("profile", ["compact", "portable", "smallest"])
def test_every_density(density, profile):
    base = model() | {"large": np.random.default_rng(3).standard_normal((600, 1000)).astype(np.float32)}
    check(base, tune(base, density), profile=profile)


def test_negative_zero_and_nan_payloads_survive():
    base = {"w": np.array([0.0, -0.0, 1.0, np.nan], np.float32)}
    tuned = {"w": np.array([0x80000000, 0, 0x7FC00123, 0xFFA00001], np.uint32).view(np.float32)}
    assert check(base, tuned)["w"].count == 4


def test_equal_checkpoints_give_a_small_diff():
    diff = check(model(), model())
    assert len(diff) == 0
    assert diff.nbytes < 1024


def test_no_tensors_at_all():
    check({}, {})
    check({}, model())
    check(model(), {}, allow_removed=True)


def test_new_and_removed_tensors():
    base, tuned = model(), tune(model())
    del tuned["ids"]
    tuned["head.weight"] = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    diff = check(base, tuned)
    assert diff.manifest.removed == ("ids",)
    assert diff["head.weight"].kind == "new"


@pytest.mark.parametrize("shape", [(120, 16), (80, 16), (120, 20), (90, 20)])
def test_resized_tensors_keep_their_overlap(shape):
    base = model()
    tuned = tune(base)
    grown = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    overlap = tuple(slice(min(a, b)) for a, b in zip(shape, base["embed"].shape, strict=True))
    grown[overlap] = base["embed"][overlap]
    tuned["embed"] = grown
    diff = check(base, tuned)
    assert diff["embed"].kind == "resized"
    assert diff["embed"].count == grown.size - base["embed"][overlap].size


@pytest.mark.parametrize("source", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("target", ["float64", "float32", "float16", "bfloat16"])
def test_retyped_tensors_are_relative_to_the_rounded_base(source, target):
    rng = np.random.default_rng(2)
    base = {"w": rng.standard_normal(5000).astype(source)}
    wide = base["w"].astype(np.float64)
    tuned = {"w": (wide.astype(np.float32) if target == "bfloat16" and source != "float64" else wide).astype(target)}
    tuned["w"][::100] = np.array(2.0, target)
    diff = check(base, tuned)
    assert diff["w"].count <= 60  # double rounding in the cast above may differ from ours in a few places
    assert diff["w"].kind == ("changed" if source == target else "retyped")


def test_tied_tensors_are_stored_once():
    base, tuned = model(), tune(model(), 0.5)
    tuned["lm_head"] = tuned["embed"].copy()
    diff = check(base, tuned)
    assert diff.manifest.aliases == {"lm_head": "embed"}


@pytest.mark.parametrize("head", ["lm_head", "a_head"])
def test_of_equal_tensors_the_one_the_base_has_is_stored(head):
    """Whatever the names: a new tensor equal to a changed one costs its name, not its bytes."""
    base, tuned = model(), tune(model(), 0.01)
    tuned[head] = tuned["embed"].copy()
    diff = check(base, tuned)
    assert diff.manifest.aliases == {head: "embed"}
    assert 0 < diff["embed"].count < tuned["embed"].size // 10


def test_a_tied_head_updated_on_one_side_only():
    base = model()
    base["lm_head"] = base["embed"].copy()
    tuned = {name: array.copy() for name, array in base.items()}
    tuned["lm_head"][3] += 1
    diff = check(base, tuned)
    assert list(diff) == ["lm_head"]


@pytest.mark.parametrize(("old", "new"), [("bert.", ""), ("", "model."), ("bert.", "encoder_only.")])
def test_a_common_prefix_is_found(old, new):
    base = {old + name: array for name, array in model().items()}
    tuned = {new + name: array for name, array in tune(model()).items()}
    diff = check(base, tuned, rename=[(old, new)])
    automatic = check(base, tuned)
    if not (old and new):
        assert automatic.manifest.rename == ((old, new),)
        assert automatic.nbytes == diff.nbytes
    assert not diff.manifest.removed
    assert all(record.kind == "changed" for record in diff.values())


def test_many_small_tensors_share_chunks():
    rng = np.random.default_rng(0)
    base = {f"experts.{at}.w": rng.standard_normal((8, 4)).astype(np.float32) for at in range(3000)}
    diff = check(base, tune(base, 0.05))
    assert len(diff.chunks) == 1
    assert diff.nbytes < 3000 * 60  # 32 bytes of digests, 1.6 changes, a name


def test_non_contiguous_arrays():
    base = {"w": np.arange(60, dtype=np.float32).reshape(6, 10).T}
    check(base, {"w": base["w"][::-1]})


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    for name in ("a.dpk", "b.dpk"):
        diffpack.extract(model(), tune(model()), tmp_path / name, threads=1 if name == "a.dpk" else 4)
    assert (tmp_path / "a.dpk").read_bytes() == (tmp_path / "b.dpk").read_bytes()


def test_big_endian_arrays():
    base = {"w": np.arange(6, dtype=">f4")}
    tuned = {"w": np.arange(6, dtype="<f4") * 2}
    restored = diffpack.load(base, diffpack.extract(base, tuned))
    assert np.array_equal(restored["w"], tuned["w"])


def test_bf16_update_of_one_ulp():
    words = np.random.default_rng(0).integers(0x3C00, 0x3E00, 4096).astype(np.uint16)
    base = {"w": words.view(ml_dtypes.bfloat16)}
    tuned = {"w": (words + (np.arange(4096) % 97 == 0)).astype(np.uint16).view(ml_dtypes.bfloat16)}
    diff = check(base, tuned)
    assert set(diff["w"].values.tolist()) == {1}


def test_a_tensor_with_an_empty_name_is_one_as_any_other():
    base = {"": np.arange(6, dtype=np.float32), "w": np.zeros(6, np.float32)}
    tuned = {"": np.arange(6, dtype=np.float32) + np.float32(1), "w": np.ones(6, np.float32)}
    diff = diffpack.extract(base, tuned)
    assert diff[""].kind == "changed"
    result = diffpack.load(base, diff)
    assert all(np.array_equal(result[name], tuned[name]) for name in tuned)
    with pytest.raises(diffpack.errors.WrongBaseError, match="w is missing"):
        diffpack.load({"": base[""]}, diff)

"""Sparse safetensors: both spellings, there and back bit for bit, and what hostile or foreign files meet."""

from __future__ import annotations

import hashlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint
from diffpack.errors import BaseNeededError, CorruptFileError, DiffpackError, UsageError, WrongBaseError
from tests.tools.models import bits, model, tune, write_safetensors

BF16 = np.dtype(ml_dtypes.bfloat16)


def policy(seed=0):
    rng = np.random.default_rng(seed)
    return {"a.weight": rng.standard_normal((12, 8)).astype(BF16), "b.bias": rng.standard_normal(8).astype(BF16)}


def patch(tmp_path, arrays, **metadata):
    return write_safetensors(tmp_path / "patch.safetensors", arrays, metadata)


def stepped(base, places):
    tuned = {name: array.copy() for name, array in base.items()}
    for name, found in places.items():
        tuned[name].reshape(-1)[found] = np.arange(len(found)).astype(BF16) + BF16.type(0.5)
    return tuned


PLACES = {"a.weight": [0, 3, 4, 95], "b.bias": [7]}


def trl(tuned, places, index, value, kind="raw"):
    found = {}
    for name, positions in places.items():
        positions = np.array(positions, np.int32)
        found[name + value] = tuned[name].reshape(-1)[positions]
        gaps = np.diff(positions, prepend=-1) - 1
        found[name + index] = positions if kind == "raw" else gaps.astype(np.uint16)
    return found


@pytest.mark.parametrize(
    ("index", "value", "kind"), [(".indices", ".values", "raw"), (".idx", ".val", "raw"), (".idx", ".val", "gap_delta")]
)
def test_the_layouts_in_use_are_read(tmp_path, index, value, kind):
    base, tuned = policy(), stepped(policy(), PLACES)
    digest = hashlib.sha256(b"".join(tuned[name].tobytes() for name in sorted(tuned))).hexdigest()
    path = patch(tmp_path, trl(tuned, PLACES, index, value, kind), encoding=kind, checksum_sha256=digest)
    done = diffpack.convert(path, base=base)
    assert (done.format, done.exact, done.direction) == ("sparse-safetensors", True, "import")
    assert bits(diffpack.load(base, done.diff)) == bits(tuned)
    assert done.diff.manifest.base.fingerprint == diffpack.fingerprint(base)
    assert done.diff.manifest.result.fingerprint == diffpack.fingerprint(tuned)
    base["b.bias"][0] += BF16.type(1)
    with pytest.raises(WrongBaseError, match="checksum"):
        diffpack.convert(path, base=base)


def test_unsorted_and_wide_indices_and_whole_tensors(tmp_path):
    base, tuned = policy(), stepped(policy(), PLACES)
    found = trl(tuned, PLACES, ".indices", ".values")
    found["a.weight.indices"] = found["a.weight.indices"][::-1].astype(np.int64)
    found["a.weight.values"] = found["a.weight.values"][::-1].copy()
    found["b.bias"] = tuned["b.bias"]
    del found["b.bias.indices"], found["b.bias.values"]
    assert bits(diffpack.load(base, diffpack.convert(patch(tmp_path, found), base=base).diff)) == bits(tuned)


DTYPES = [np.float32, np.float64, np.float16, BF16, np.int8, np.int64, np.bool_, ml_dtypes.float8_e4m3fn]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(DTYPES), st.sampled_from(["indices", "idx"]), st.booleans())
def test_there_and_back_bit_for_bit(tmp_path_factory, seed, dtype, names, lossy):
    """Any bits: NaN payloads, both zeros, subnormals."""
    tmp_path, rng = tmp_path_factory.mktemp("sparse"), np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, rng.integers(1, 4)))
    raw = rng.integers(0, 256, (2, int(np.prod(shape)) * np.dtype(dtype).itemsize)).astype(np.uint8)
    if dtype is np.bool_:
        raw &= 1
    before, other = (row.view(dtype).reshape(shape) for row in raw)
    base = {"w": before, "same": before}
    tuned = {"w": np.where(rng.random(shape) < 0.4, other, before), "same": before}
    with np.errstate(all="ignore"):
        diff = diffpack.extract(base, tuned, values="f32" if lossy else "exact")
    expected = diffpack.load(base, diff)
    out = tmp_path / "patch.safetensors"
    assert diffpack.convert(diff, out, base=base, options={"names": names}).exact
    back = diffpack.convert(out, tmp_path / "back.dpk", base=base)
    assert back.exact
    assert bits(diffpack.load(base, tmp_path / "back.dpk")) == bits(expected)
    with pytest.raises(WrongBaseError):
        diffpack.convert(out, base={"w": before, "same": np.zeros((2, 99), np.uint16)})


def test_what_is_written_is_what_the_other_tools_read(tmp_path):
    """As they do it: flat[indices] = values."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    base, tuned = policy(), stepped(policy(), PLACES)
    diff = diffpack.extract(base, tuned, metadata={"step": "7"})
    done = diffpack.convert(diff, tmp_path / "p.safetensors", base=base)
    assert any("notes" in note for note in done.notes)
    loaded = safetensors.load_file(tmp_path / "p.safetensors")
    assert set(loaded) == {f"{name}{end}" for name in PLACES for end in (".indices", ".values")}
    for name, array in base.items():
        flat = array.reshape(-1).view(np.int16).copy()
        index = loaded[f"{name}.indices"]
        assert str(index.dtype) == "torch.int32"
        flat[index.long().numpy()] = loaded[f"{name}.values"].view(torch.int16).numpy()
        assert np.array_equal(flat, tuned[name].reshape(-1).view(np.int16))
    header = SafetensorsCheckpoint(tmp_path / "p.safetensors").header.metadata
    assert header["format"] == "sparse_weight_patch"
    assert int(header["total_changed_elements"]) == 5


def test_what_it_cannot_say_is_refused(tmp_path):
    base = model()
    out = tmp_path / "p.safetensors"
    cases = {
        "new is new": base | {"new": np.ones(3, np.float32)},
        "embed is removed": {name: array for name, array in base.items() if name != "embed"},
        "embed is resized": base | {"embed": np.ones((101, 16), np.float32)},
        "embed is retyped": base | {"embed": base["embed"].astype(np.float16)},
        "renamed": {f"m.{name}": array for name, array in base.items()},
    }
    for message, tuned in cases.items():
        diff = diffpack.extract(base, tuned)
        with pytest.raises(UsageError, match=message):
            diffpack.convert(diff, out, base=base)
    diff = diffpack.extract(base, tune(base))
    with pytest.raises(BaseNeededError):
        diffpack.convert(diff, out)
    with pytest.raises(WrongBaseError):
        diffpack.convert(diff, out, base=tune(base))
    with pytest.raises(UsageError, match="names is"):
        diffpack.convert(diff, out, base=base, options={"names": "x"})
    with pytest.raises(UsageError, match="partial is"):
        diffpack.convert(diff, out, base=base, options={"partial": "perhaps"})
    assert not out.exists()


def test_what_it_cannot_say_is_left_out_if_asked_and_the_output_is_lossy(tmp_path):
    base = model()
    tuned = tune(base) | {"new": np.ones(3, np.float32), "scale": np.array(0.5, np.float16)}
    del tuned["embed"]
    out = tmp_path / "p.safetensors"
    done = diffpack.convert(diffpack.extract(base, tuned), out, base=base, options={"partial": "yes"})
    assert not done.exact
    assert "embed (removed), new (new), scale (retyped)" in done.notes[0]
    found = diffpack.load(base, diffpack.convert(out, base=base).diff)
    expected = {name: base[name] if name in ("embed", "scale") else tuned[name] for name in base}
    assert bits(found) == bits(expected)


def test_a_tied_tensor_is_written_under_each_name(tmp_path):
    base = {"embed": np.zeros((64, 16), np.float32), "head": np.zeros((64, 16), np.float32)}
    tuned = {name: np.arange(1024, dtype=np.float32).reshape(64, 16) for name in base}
    diff = diffpack.extract(base, tuned)
    assert diff.manifest.aliases
    diffpack.convert(diff, tmp_path / "p.safetensors", base=base)
    back = diffpack.convert(tmp_path / "p.safetensors", base=base).diff
    assert bits(diffpack.load(base, back)) == bits(tuned)
    one_side = diffpack.extract(base, base | {"embed": tuned["embed"]})
    diffpack.convert(one_side, tmp_path / "q.safetensors", base=base)
    back = diffpack.convert(tmp_path / "q.safetensors", base=base).diff
    assert not diffpack.load(base, back)["head"].any()


def indexed(index, count=None, dtype=np.int32, value=BF16):
    index = np.array(index, dtype)
    return {"a.weight.indices": index, "a.weight.values": np.zeros(index.size if count is None else count, value)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (indexed([0, 96]), "96 is outside its 96"),
        (indexed([-2147483648]), r"int32 positions end at 2\^31"),
        (indexed([2**63], dtype=np.uint64), "outside"),
        (indexed([3, 3]), "twice"),
        (indexed([1, 2], count=3), "2 indices and 3 values"),
        (indexed([0.5], dtype=np.float32), "not one of"),
        ({"a.weight.indices": np.zeros(1, np.int32)}, "other half"),
    ],
)
def test_hostile_indices_are_refused(tmp_path, arrays, message):
    with pytest.raises(CorruptFileError, match=message):
        diffpack.convert(patch(tmp_path, arrays), tmp_path / "x.dpk", base=policy(), from_="sparse-safetensors")
    assert not (tmp_path / "x.dpk").exists()


def test_hostile_gaps_are_refused(tmp_path):
    for gaps in ([0, 200], [95, 0], [65535] * 90):
        arrays = {"a.weight.idx": np.array(gaps, np.uint32), "a.weight.val": np.zeros(len(gaps), BF16)}
        with pytest.raises(CorruptFileError, match="outside"):
            diffpack.convert(patch(tmp_path, arrays, encoding="gap_delta"), base=policy())
    with pytest.raises(UsageError, match="nvcomp"):
        diffpack.convert(patch(tmp_path, arrays, encoding="nvcomp_cascaded"), base=policy())


def test_other_dtypes_and_missing_tensors_are_another_base(tmp_path):
    with pytest.raises(WrongBaseError, match="values of F32"):
        diffpack.convert(patch(tmp_path, indexed([0], value=np.float32)), base=policy())
    with pytest.raises(WrongBaseError, match=r"no tensors of these names: a\.weight"):
        diffpack.convert(patch(tmp_path, indexed([0])), base={"x": np.zeros(3, np.float32)})
    with pytest.raises(BaseNeededError):
        diffpack.convert(patch(tmp_path, indexed([0])))


def test_rename_leads_from_the_bases_names(tmp_path):
    base, tuned = policy(), stepped(policy(), PLACES)
    path = patch(
        tmp_path, {f"model.{name}": array for name, array in trl(tuned, PLACES, ".indices", ".values").items()}
    )
    with pytest.raises(DiffpackError, match="rename"):
        diffpack.convert(path, base=base)
    done = diffpack.convert(path, base=base, rename=[("", "model.")])
    assert bits(diffpack.load(base, done.diff)) == bits(tuned)


def test_positions_beyond_int32():
    """2^31 entries and more are never made here: the choice of the index is checked on a claimed shape."""
    from diffpack.bridges.formats import sparse_safetensors as bridge
    from diffpack.bridges.importing import sorted_positions

    assert np.iinfo(np.int32).max + 1 == bridge._INT32_WORDS
    positions, order = sorted_positions(np.array([5, 2**31 + 7], np.int64), 2**31 + 8, "here")
    assert positions.tolist() == [5, 2**31 + 7]
    assert order is None
    with pytest.raises(CorruptFileError, match="int32 positions end"):
        sorted_positions(np.array([5, 2**31 + 7], np.int64).astype(np.int32), 2**31 + 8, "here")

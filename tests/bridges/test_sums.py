"""Sums an import makes that its base's dtype cannot hold are refused by name, or clipped where asked."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import CorruptFileError, UsageError
from tests.tools.adapters import adapter
from tests.tools.models import bits, model, tune

ROOM = np.full((6, 4), 60000, np.float16)
BASE = {"m.q.weight": ROOM, "m.q.bias": np.full(6, 60000, np.float16), "m.v.weight": -ROOM}


def lora(path, factor, **more):
    """A change of factor x 100 everywhere."""
    pair = {"lora_A.weight": np.full((1, 4), 100, np.float32), "lora_B.weight": np.full((6, 1), factor, np.float32)}
    return adapter(path, {f"m.q.{end}": array for end, array in pair.items()} | more, r=1, lora_alpha=1)


def test_a_merged_adapter_beyond_float16(tmp_path):
    path = lora(tmp_path / "a", 100)
    with pytest.raises(UsageError, match=r"m\.q\.weight: 24 F16 entries, up to 70000 where 65504 is the last: clip"):
        diffpack.convert(path, tmp_path / "x.dpk", base=BASE)
    assert not (tmp_path / "x.dpk").exists()
    done = diffpack.convert(path, base=BASE, clip=True)
    assert (diffpack.load(BASE, done.diff)["m.q.weight"] == np.float16(65504)).all()
    assert done.diff.manifest.recipe["clipped"] == "24 entries"
    assert any("clipped" in note and "m.q.weight" in note for note in done.notes)
    diffpack.verify(done.diff, BASE)


def test_a_change_of_a_bias_and_one_beyond_float32(tmp_path):
    path = lora(tmp_path / "a", 1, **{"m.q.lora_B.bias": np.full(6, 1e4, np.float32)})
    with pytest.raises(UsageError, match=r"m\.q\.bias: 6 F16 entries, up to 70000"):
        diffpack.convert(path, base=BASE)
    wide = {name: array.astype(np.float32) for name, array in BASE.items()}
    path = lora(tmp_path / "b", 1e38)  # 100 times that is no float32
    with pytest.raises(UsageError, match=r"m\.q\.weight: 24 F32 entries, up to 1e\+40"):
        diffpack.convert(path, base=wide)
    done = diffpack.convert(path, base=wide, clip=True)
    assert (diffpack.load(wide, done.diff)["m.q.weight"] == np.finfo(np.float32).max).all()
    with pytest.raises(CorruptFileError, match="not finite"):
        diffpack.convert(lora(tmp_path / "c", np.inf), base=wide, clip=True)


def test_what_is_replaced_is_rounded_to_the_bases_dtype(tmp_path):
    """A trained module in float32 on a base in float16: a number beyond it is refused, its own infinity stays."""
    whole = ROOM.astype(np.float32)
    whole[0, :2] = [1e6, -np.inf]
    path = adapter(tmp_path / "a", {"m.q.weight": whole})
    with pytest.raises(UsageError, match=r"m\.q\.weight: 1 F16 entries, up to 1e\+06"):
        diffpack.convert(path, base=BASE)
    found = diffpack.load(BASE, diffpack.convert(path, base=BASE, clip=True).diff)["m.q.weight"]
    assert found[0].tolist() == [65504, -np.inf, 60000, 60000]
    infinite = adapter(tmp_path / "b", {"m.q.weight": np.full((6, 4), np.inf, np.float16)})
    done = diffpack.convert(infinite, base=BASE)
    assert done.exact
    assert np.isinf(diffpack.load(BASE, done.diff)["m.q.weight"]).all()


def test_differences_that_are_added(tmp_path):
    indices = np.array([[0, 1, 2], [0, 1, 2]], np.int32)
    values = np.array([1e4, 1, -1e4], np.float32)
    path = adapter(tmp_path / "s", {"m.q.shira_indices": indices, "m.q.shira_weight": values}, "SHIRA")
    with pytest.raises(UsageError, match=r"m\.q\.weight: 1 F16 entries, up to 70000"):
        diffpack.convert(path, base=BASE)
    done = diffpack.convert(path, base=BASE, clip=True)
    expected = ROOM.copy()
    expected[[0, 2], [0, 2]] = [65504, 50000]
    assert bits({"w": diffpack.load(BASE, done.diff)["m.q.weight"]}) == bits({"w": expected})
    assert done.diff.manifest.recipe["clipped"] == "1 entry"


def test_a_matrix_of_differences(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    sparse.save_npz(tmp_path / "m.v.weight.npz", sparse.coo_array(([-1e4], ([3], [2])), shape=(6, 4)))
    with pytest.raises(UsageError, match=r"m\.v\.weight: 1 F16 entries, up to 70000"):
        diffpack.convert(tmp_path / "m.v.weight.npz", base=BASE)
    found = diffpack.load(BASE, diffpack.convert(tmp_path / "m.v.weight.npz", base=BASE, clip=True).diff)
    assert found["m.v.weight"][3, 2] == np.float16(-65504)


def test_new_values_are_no_sums(tmp_path):
    """What a tool stores as bits is given back, infinite or not; clip says nothing to it."""
    base = {"w": np.ones(6, np.float16)}
    tuned = {"w": np.array([1, np.inf, -np.inf, np.nan, 2, 3], np.float16)}
    diff = diffpack.extract(base, tuned)
    for to, out in (("sparse-safetensors", "p.safetensors"), ("sglang-delta", "d")):
        diffpack.convert(diff, tmp_path / out, to=to, base=base)
        for clip in (False, True):
            assert bits(diffpack.load(base, diffpack.convert(tmp_path / out, base=base, clip=clip).diff)) == bits(tuned)


def test_clip_is_for_imports(tmp_path):
    with pytest.raises(UsageError, match="clip is for a diff that is written"):
        diffpack.convert(diffpack.extract(model(), tune(model())), tmp_path / "d.h5", clip=True)


def test_an_adapters_diff_is_composed_and_undone(tmp_path):
    """Called lossy, since PEFT's sums differ in the last bits, it is in steps: they add up and have an inverse."""
    base = {name: (array / np.float16(60000)).astype(np.float16) for name, array in BASE.items()}
    done = diffpack.convert(lora(tmp_path / "a", 0.01), base=base, options={"values": "merged"})
    assert not done.exact
    merged = diffpack.load(base, done.diff)
    tuned = tune(merged, 0.5)
    both = diffpack.compose([done.diff, diffpack.extract(merged, tuned)])
    assert not both.exact
    assert bits(diffpack.load(base, both)) == bits(tuned)
    assert bits(diffpack.load(merged, diffpack.invert(done.diff))) == bits(base)

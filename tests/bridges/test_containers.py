"""HDF5 and scipy folders give a diff back whole: all it says, without the base."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import diffpack
from diffpack.errors import BaseNeededError, DiffpackError, UsageError, WrongBaseError
from tests.tools import ROOT
from tests.tools.chains import chains
from tests.tools.containers import whole
from tests.tools.models import bits, model, tune, write_shards

h5py = pytest.importorskip("h5py")
sparse = pytest.importorskip("scipy.sparse")


def said(diff):
    """All a diff says, but how it is coded."""
    manifest = replace(diff.manifest, groups=(), requires=(), optional=())
    records = {
        name: (
            record.kind, record.info, record.base, record.exact, record.count, diff.digests(name),
            record.to_dense().tobytes(),
        )
        for name, record in diff.items()
    }  # fmt: skip
    errors = {
        name: error
        for group in diff.manifest.groups
        for name, error in zip(group.names, group.errors or (), strict=False)
    }
    return manifest, records, errors


def there_and_back(diff, tmp_path, name, base=None):
    out = tmp_path / ("diffs.h5" if name == "hdf5" else "matrices")
    assert diffpack.convert(diff, out, to=name, base=base, force=True).exact
    done = diffpack.convert(out, tmp_path / "back.dpk", force=True)
    assert (done.format, done.exact) == (name, diff.exact)
    return diffpack.open(tmp_path / "back.dpk")


FORMATS = pytest.mark.parametrize("name", ["hdf5", "scipy"])


@FORMATS
@settings(max_examples=25, deadline=None)
@given(states=chains(links=1), values=st.sampled_from(["exact", "f32"]))
def test_a_diff_comes_back_whole(tmp_path_factory, name, states, values):
    tmp_path = tmp_path_factory.mktemp("back")
    with np.errstate(all="ignore"):
        diff = diffpack.extract(
            *states, allow_removed=True, values=values, metadata={"k": "v"}, base_name="b", base_revision="r"
        )
    assume(not (diff.manifest.copies or diff.manifest.slices))  # which need the base: test_resolve.py
    back = there_and_back(diff, tmp_path, name)
    assert said(back) == said(diff)
    assert bits(diffpack.load(states[0], back)) == bits(diffpack.load(states[0], diff))


@pytest.mark.parametrize("values", ["f16", "bf16", "int8"])
def test_hdf5_keeps_every_plain_value_coding(tmp_path, values):
    base = model() | {"half": np.linspace(-1, 1, 64).astype(ml_dtypes.bfloat16)}
    diff = diffpack.extract(base, tune(base, 0.3), values=values)
    back = there_and_back(diff, tmp_path, "hdf5")
    assert said(back) == said(diff)
    assert {record.coding[1] for record in back.values()} == {record.coding[1] for record in diff.values()}


@FORMATS
def test_codings_that_are_not_kept_give_the_same_bits(tmp_path, name):
    """Grid values become the float32 numbers they stand for; scipy does this with every lossy coding."""
    base = {"w": np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)}
    tuned = {"w": base["w"] + np.random.default_rng(1).normal(0, 0.01, (300, 200)).astype(np.float32)}
    for options in ({"budget": 20_000}, {"values": "int8"}, {"values": "f16"}):
        diff = diffpack.extract(base, tuned, **options)
        back = there_and_back(diff, tmp_path, name)
        assert not back.exact
        assert back.manifest.result == diff.manifest.result
        assert bits(diffpack.load(base, back)) == bits(diffpack.load(base, diff))


@FORMATS
def test_changes_coded_against_the_base_need_it(tmp_path, name):
    rng, kind = np.random.default_rng(0), ml_dtypes.bfloat16
    base = {"w": rng.standard_normal(200_000).astype(kind)}
    tuned = {"w": (base["w"].astype(np.float32) + rng.normal(0, 1e-3, 200_000)).astype(kind)}
    diff = diffpack.extract(base, tuned, profile="smallest")
    assert diff["w"].coding[0] in ("classes", "levels")
    with pytest.raises(BaseNeededError):
        there_and_back(diff, tmp_path, name)
    back = there_and_back(diff, tmp_path, name, base=base)
    assert back.manifest.base == diff.manifest.base
    assert bits(diffpack.load(base, back)) == bits(tuned)


@FORMATS
def test_a_base_that_is_given_is_checked(tmp_path, name):
    base = model()
    diff = diffpack.extract(base, tune(base))
    assert there_and_back(diff, tmp_path, name, base=base).manifest.base == diff.manifest.base
    there = next(tmp_path.iterdir())
    with pytest.raises(WrongBaseError, match="not the base of"):
        diffpack.convert(there, base=tune(base, 0.5))
    with pytest.raises(UsageError, match="rename says nothing"):
        diffpack.convert(there, rename=[("a", "b")])


@pytest.mark.parametrize("option", [{"rename": [("a", "b")]}, {"metadata": {"task": "x"}}, {"profile": "portable"}])
def test_what_an_export_has_no_use_for_is_refused(tmp_path, option):
    with pytest.raises(UsageError, match="for a diff that is written"):
        diffpack.convert(diffpack.extract(model(), tune(model())), tmp_path / "d.h5", **option)


@FORMATS
def test_layouts_and_side_files_come_back(tmp_path, name):
    base = model()
    for folder, arrays in {"from": base, "to": tune(base)}.items():
        write_shards(tmp_path / folder, {"a.safetensors": arrays, "b.safetensors": {"z": np.ones(3)}})
        (tmp_path / folder / "config.json").write_text(folder)
        (tmp_path / folder / "vocab.txt").write_text("the same")
    (tmp_path / "to" / "extra.json").write_text("{}")
    diff = diffpack.extract(tmp_path / "from", tmp_path / "to", sha256=True)
    back = there_and_back(diff, tmp_path, name)
    assert said(back) == said(diff)
    diffpack.apply(tmp_path / "from", back, tmp_path / "out")
    for path in (tmp_path / "to").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@FORMATS
@pytest.mark.parametrize("path", sorted((ROOT / "fixtures").glob("v1.*/*.dpk")), ids=lambda path: path.stem)
def test_every_fixture_that_needs_no_base_comes_back(tmp_path, name, path):
    diff = diffpack.open(path)
    try:
        back = there_and_back(diff, tmp_path, name)
    except BaseNeededError:
        coded = any(group.position_coding_id in ("classes", "levels", "rule") for group in diff.manifest.groups)
        assert coded or diff.manifest.copies or diff.manifest.slices
        return
    assert back.manifest.base == diff.manifest.base
    assert back.manifest.result == diff.manifest.result
    assert (back.exact, list(back), back.metadata) == (diff.exact, list(diff), diff.metadata)
    if name == "hdf5" and not any(group.value_coding_id == "grid" for group in diff.manifest.groups):
        assert said(back) == said(diff)


def test_the_second_trip_gives_the_same_bytes(tmp_path):
    diff = diffpack.extract(model(), tune(model()))
    there_and_back(diff, tmp_path, "hdf5")
    first = (tmp_path / "back.dpk").read_bytes()
    assert (there_and_back(diffpack.open(first), tmp_path, "hdf5"), (tmp_path / "back.dpk").read_bytes())[1] == first
    once = (tmp_path / "diffs.h5").read_bytes()
    diffpack.convert(diff, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == once


NAMES = ["a/b", "a", "..", ".", "/", "x" * 300, "ü", "%2E", "A", "a:b*?", "\n", " "]


@FORMATS
def test_any_tensor_name_comes_back_and_none_is_a_path(tmp_path, name):
    base = {key: np.zeros(3, np.float32) for key in NAMES}
    tuned = {key: np.full(3, at + 1, np.float32) for at, key in enumerate(NAMES)}
    back = there_and_back(diffpack.extract(base, tuned, rename=()), tmp_path, name)
    assert bits(diffpack.load(base, back)) == bits(tuned)
    assert {path.name for path in tmp_path.iterdir()} <= {"diffs.h5", "matrices", "back.dpk"}


def test_sources_and_outputs_that_do_not_fit(tmp_path):
    base, tuned = whole(tmp_path)
    diff = diffpack.extract(base, tuned)
    with pytest.raises(UsageError, match="exists already"):
        diffpack.convert(diff, tmp_path / "d.h5")
    with pytest.raises(UsageError, match="needs an output"):
        diffpack.convert(diff, to="hdf5")
    with pytest.raises(UsageError, match="the format is one of"):
        diffpack.convert(diff, tmp_path / "x", to="gguf")
    with pytest.raises(UsageError, match="one side of a conversion"):
        diffpack.convert(tmp_path / "d.h5", tmp_path / "x", to="scipy")
    with pytest.raises(UsageError, match="nothing to convert"):
        diffpack.convert([])
    with pytest.raises(DiffpackError, match="no such file"):
        diffpack.convert(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="has no option"):
        diffpack.convert(tmp_path / "d.h5", options={"x": "y"})
    diff.save(tmp_path / "d.dpk")
    with pytest.raises(UsageError, match="also an input"):
        diffpack.convert(tmp_path / "d.dpk", tmp_path, to="scipy", force=True)

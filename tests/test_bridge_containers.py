"""HDF5 and scipy folders give a diff back whole: all it says, without the base. And what hostile files meet."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from chains import chains
from conftest import bits, model, tune, write_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import diffpack
from diffpack.errors import BaseNeededError, CorruptFileError, DiffpackError, UsageError, WrongBaseError

h5py = pytest.importorskip("h5py")
sparse = pytest.importorskip("scipy.sparse")
ROOT = Path(__file__).parent.parent


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
        diff = diffpack.extract(*states, values=values, metadata={"k": "v"}, base_name="b", base_revision="r")
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
        assert any(group.position_coding_id in ("classes", "levels", "rule") for group in diff.manifest.groups)
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


def test_one_file_has_many_tasks_and_any_hdf5_tool_reads_it(tmp_path):
    base = model()
    expected = {}
    for at, task in enumerate(["sst2", "mnli", "a/b"]):
        expected[task] = tune(base, 0.02, at + 5)
        diffpack.extract(base, expected[task], tmp_path / f"{at}.dpk", metadata={"task": task})
    paths = [tmp_path / f"{at}.dpk" for at in range(3)]
    assert diffpack.convert(paths, tmp_path / "tasks.h5").exact
    with h5py.File(tmp_path / "tasks.h5") as file:
        assert list(file["tasks"]) == ["sst2", "mnli", "a%2Fb"]
        task = file["tasks/sst2"]
        assert task.attrs["exact"]
        assert task.attrs["base"].decode() == diffpack.fingerprint(base)
        group = task["tensors/encoder.0.weight"]
        changed = np.flatnonzero(expected["sst2"]["encoder.0.weight"] != base["encoder.0.weight"])
        assert np.array_equal(group["positions"], changed)
        assert group["positions"].chunks is not None
        assert group["values"].dtype == np.int32
        assert group.attrs["kind"] == b"changed"
    with pytest.raises(UsageError, match=r"holds 3 tasks \(sst2, mnli"):
        diffpack.convert(tmp_path / "tasks.h5")
    with pytest.raises(UsageError, match="no task 'x'"):
        diffpack.convert(tmp_path / "tasks.h5", options={"task": "x"})
    for task, tuned in expected.items():
        back = diffpack.convert(tmp_path / "tasks.h5", options={"task": task}).diff
        assert bits(diffpack.load(base, back)) == bits(tuned)
    with pytest.raises(UsageError, match="two diffs of one name"):
        diffpack.convert([paths[0], paths[0]], tmp_path / "twice.h5")
    with pytest.raises(UsageError, match="one diff, not 2"):
        diffpack.convert(paths[:2], tmp_path / "x", to="scipy")
    assert not (tmp_path / "twice.h5").exists()


def whole(tmp_path):
    base = {"w": np.zeros((20, 30), np.float32), "v": np.zeros(7, np.float32)}
    tuned = {"w": base["w"].copy(), "v": np.ones(7, np.float32)}
    tuned["w"][3, 4], tuned["w"][9] = 2, 1
    diff = diffpack.extract(base, tuned)
    diffpack.convert(diff, tmp_path / "d.h5")
    diffpack.convert(diff, tmp_path / "m", to="scipy")
    return base, tuned


def replaced(group, name, data, **options):
    del group[name]
    group.create_dataset(name, data=data, **options)


def statement(change):
    def edit(task):
        value = json.loads(task["statement"][()].tobytes())
        change(value)
        replaced(task, "statement", np.frombuffer(json.dumps(value).encode(), np.uint8))

    return edit


HOSTILE = {
    "a position outside": lambda task: replaced(task["tensors/w"], "positions", np.arange(600, 631)),
    "a negative position": lambda task: replaced(task["tensors/w"], "positions", np.arange(-1, 30)),
    "positions twice": lambda task: replaced(task["tensors/w"], "positions", np.zeros(31, np.int64)),
    "too few positions": lambda task: replaced(task["tensors/w"], "positions", np.arange(3)),
    "positions that are floats": lambda task: replaced(task["tensors/w"], "positions", np.zeros(31)),
    "values of another kind": lambda task: replaced(task["tensors/w"], "values", np.zeros(31, np.float32)),
    "values too narrow": lambda task: replaced(task["tensors/w"], "values", np.zeros(31, np.int16)),
    "too many values": lambda task: replaced(task["tensors/w"], "values", np.zeros(601, np.int32)),
    "no values": lambda task: task["tensors/w"].__delitem__("values"),
    "no tensor": lambda task: task["tensors"].__delitem__("w"),
    "no statement": lambda task: task.__delitem__("statement"),
    "a link outside": lambda task: (
        task["tensors/w"].__delitem__("values"),
        task["tensors/w"].__setitem__("values", h5py.ExternalLink("/etc/passwd", "/")),
    ),
    "another dtype": statement(lambda value: value["records"][1].update(dtype="F64")),
    "a coding that is none": statement(lambda value: value["records"][1].update(values="x")),
    "a shape that is larger": statement(lambda value: value["records"][1].update(shape=[1 << 32, 1 << 31])),
    "a shape that is negative": statement(lambda value: value["records"][1].update(shape=[-20, -30])),
    "records out of order": statement(lambda value: value["records"].reverse()),
    "a digest that is none": statement(lambda value: value["records"][1].update(base_digest="../..")),
    "another version": statement(lambda value: value.update(version=2)),
    "a manifest without members": statement(lambda value: value.update(manifest={})),
    "files that are none": statement(lambda value: value["manifest"].update(files=3)),
    "a place outside": statement(lambda value: value["records"][1].update(place="../../statement")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_hdf5_files_are_refused(tmp_path, case):
    whole(tmp_path)
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        HOSTILE[case](file["tasks/diff in memory"])
    with pytest.raises(DiffpackError):
        diffpack.convert(tmp_path / "d.h5", tmp_path / "x.dpk")
    assert not (tmp_path / "x.dpk").exists()


def test_a_dataset_that_claims_more_than_its_bytes_can_hold_is_refused(tmp_path):
    """Chunks that were never written take no room in the file, and read as zeros."""
    whole(tmp_path)
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        task = file["tasks/diff in memory"]
        statement(lambda value: value["records"][1].update(shape=[1 << 20, 1 << 20], base_shape=[1 << 20, 1 << 20]))(
            task
        )
        del task["tensors/w/values"], task["tensors/w/positions"]
        task["tensors/w"].create_dataset("values", (1 << 40,), np.int32, chunks=(1 << 20,), compression=9)
    assert (tmp_path / "d.h5").stat().st_size < 1 << 20
    with pytest.raises(CorruptFileError, match="1099511627776 numbers"):
        diffpack.convert(tmp_path / "d.h5")


def test_other_hdf5_files_are_no_diffs(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["w"] = np.zeros(3)
    with pytest.raises(UsageError, match="of no format known"):
        diffpack.convert(tmp_path / "x.h5")
    with pytest.raises(CorruptFileError, match="not a file of diffs"):
        diffpack.convert(tmp_path / "x.h5", from_="hdf5")


def test_damaged_hdf5_files_raise_our_errors_only(tmp_path):
    whole(tmp_path)
    data = (tmp_path / "d.h5").read_bytes()
    for size in range(0, len(data), len(data) // 12):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(DiffpackError):
            diffpack.convert(tmp_path / "cut.h5", from_="hdf5")


def test_scipy_reads_what_is_written(tmp_path):
    base, tuned = whole(tmp_path)
    matrix = sparse.load_npz(tmp_path / "m" / "w.npz")
    assert matrix.shape == (20, 30)
    steps = diffpack.extract(base, tuned)["w"].to_scipy()
    assert np.array_equal(matrix.toarray(), steps.toarray())
    assert matrix.dtype == np.int32
    assert sparse.load_npz(tmp_path / "m" / "v.npz").shape == (1, 7)


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_a_single_matrix_is_added(tmp_path, form):
    base = {"m.w": np.ones((20, 30), np.float32), "other": np.zeros(3, np.float32)}
    change = np.where(np.random.default_rng(0).random((20, 30)) < 0.1, 0.5, 0)
    sparse.save_npz(tmp_path / "m.w.npz", sparse.coo_array(change).asformat(form))  # float64
    done = diffpack.convert(tmp_path / "m.w.npz", base=base)
    assert (done.format, done.exact) == ("scipy", False)
    assert bits(diffpack.load(base, done.diff)) == bits({**base, "m.w": (base["m.w"] + change).astype(np.float32)})
    with pytest.raises(WrongBaseError, match="a matrix of"):
        diffpack.convert(tmp_path / "m.w.npz", base={"m.w": np.ones((30, 20), np.float32)})
    with pytest.raises(BaseNeededError):
        diffpack.convert(tmp_path / "m.w.npz")


def npz(path, **arrays):
    shape = {"shape": np.array([20, 30]), "format": np.array(b"coo")}
    np.savez_compressed(path, **(shape | {name: np.array(array) for name, array in arrays.items()}))
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {"row": [20], "col": [0], "data": [1.0]},
        {"row": [0], "col": [-1], "data": [1.0]},
        {"row": [0, 0], "col": [1, 1], "data": [1.0, 1.0]},
        {"row": [0], "col": [1], "data": [1.0, 2.0]},
        {"row": [0.5], "col": [1], "data": [1.0]},
        {"row": [0], "col": [1], "data": [np.nan]},
        {"row": [0], "col": [1]},
        {"row": [0], "col": [1], "data": np.array([object()])},
        {"row": np.zeros(1 << 22, np.int64), "col": [1], "data": [1.0]},
        {"row": [0], "col": [1], "data": np.zeros(1 << 22)},
        {"indices": [0], "indptr": np.zeros(21, int), "data": [1.0], "format": b"csr"},
        {"indices": [0], "indptr": [0, 1], "data": [1.0], "format": b"csr"},
        {"indices": [40], "indptr": [0] + [1] * 20, "data": [1.0], "format": b"csr"},
        {"data": [1.0], "format": b"dia"},
    ],
)
def test_hostile_matrices_are_refused(tmp_path, arrays):
    base = {"w": np.ones((20, 30), np.float32)}
    with pytest.raises(DiffpackError):
        diffpack.convert(npz(tmp_path / "w.npz", **arrays), tmp_path / "x.dpk", base=base, from_="scipy")
    assert not (tmp_path / "x.dpk").exists()


def test_damaged_matrices_and_indexes_raise_our_errors_only(tmp_path):
    base, _ = whole(tmp_path)
    assert base
    index = tmp_path / "m" / "diffpack.json"
    good = index.read_bytes()
    for place in ("../d.h5", "/etc/passwd", "missing.npz", ""):
        value = json.loads(good)
        value["records"][1]["place"] = place
        index.write_text(json.dumps(value))
        with pytest.raises(DiffpackError):
            diffpack.convert(tmp_path / "m")
    index.write_bytes(good)
    path = tmp_path / "m" / "w.npz"
    data = path.read_bytes()
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            found = diffpack.convert(tmp_path / "m").diff
        except DiffpackError:
            continue
        assert found["w"].shape == (20, 30)  # where the change hit what nobody reads
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00\xff\xff")
    with pytest.raises(CorruptFileError):
        diffpack.convert(tmp_path / "m")


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

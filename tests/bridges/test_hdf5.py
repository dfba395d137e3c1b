"""A file of diffs holds many tasks, any HDF5 tool reads it, and hostile ones are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffpack
from diffpack.errors import CorruptFileError, DiffpackError, UsageError, WrongBaseError
from tests.tools.containers import whole
from tests.tools.models import bits, model, tune

h5py = pytest.importorskip("h5py")


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


@pytest.mark.parametrize("given", [True, False])
def test_tasks_that_rename_differently_meet_by_the_bases_names(tmp_path, given):
    base = {f"bert.{name}": array for name, array in model().items()}
    prefixed, plain = tune(base, 0.1, 1), {name.removeprefix("bert."): x for name, x in tune(base, 0.1, 2).items()}
    plain["head"] = np.ones(3, np.float32)
    for name, tuned in (("one", prefixed), ("two", plain)):
        diffpack.extract(base, tuned, tmp_path / f"{name}.dpk")
    paths = [tmp_path / "one.dpk", tmp_path / "two.dpk"]
    diffpack.convert(paths, tmp_path / "tasks.h5", base=base if given else None)
    with h5py.File(tmp_path / "tasks.h5") as file:
        names = [
            {
                str(group.attrs.get("base_name", name.encode()), "utf-8")
                for name, group in file[f"tasks/{task}/tensors"].items()
            }
            for task in ("one", "two")
        ]
        assert "base_name" not in file["tasks/one/tensors/bert.embed"].attrs
        assert file["tasks/two/tensors/embed"].attrs["base_name"] == b"bert.embed"
        assert "base_name" not in file["tasks/two/tensors/head"].attrs
    assert names[1] == names[0] | {"head"}
    for task, tuned in (("one", prefixed), ("two", plain)):
        back = diffpack.convert(tmp_path / "tasks.h5", options={"task": task}).diff
        assert bits(diffpack.load(base, back)) == bits(tuned)
    diffpack.convert(paths[1], tmp_path / "alone.h5")
    with h5py.File(tmp_path / "alone.h5") as file:  # `embed` may have been `embed` or `bert.embed`
        assert "base_name" not in file["tasks/two/tensors/embed"].attrs


@pytest.mark.parametrize("to", ["hdf5", "scipy"])
def test_a_wrong_base_is_refused_on_the_way_out(tmp_path, to):
    diff = diffpack.extract(model(), tune(model()))
    with pytest.raises(WrongBaseError, match="not the base of"):
        diffpack.convert(diff, tmp_path / "out.h5", to=to, base=tune(model(), 0.5))
    assert not (tmp_path / "out.h5").exists()


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

"""Many diffs are counted, from files and folders; what is wrong with one does not end the report of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import CorruptFileError, DiffpackError, UsageError, WrongBaseError
from diffpack.report.budget import Budget
from diffpack.report.stats import SORTS, stats
from tests.tools.models import model, tune, write_safetensors


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with three tasks of one base, one of them in a folder of its own, and other files."""
    base = model()
    for at, place in enumerate(["b.dpk", "a.dpk", "more/c.dpk"]):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        diffpack.extract(base, tune(base, 0.02 * (at + 1), at), tmp_path / place)
    (tmp_path / "notes.txt").write_text("no diff")
    (tmp_path / ".hidden.dpk").write_bytes(b"none either")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "old.dpk").write_bytes(b"none either")
    return tmp_path


def names(found: diffpack.Stats) -> list[str]:
    return [Path(item.name).name for item in found.diffs]


def test_a_folder_is_all_its_diffs(tasks):
    found = stats(tasks)
    assert names(found) == ["a.dpk", "b.dpk", "c.dpk"]
    assert found.nbytes == sum(path.stat().st_size for path in tasks.rglob("[!.]*.dpk") if ".trash" not in path.parts)
    assert names(stats([tasks / "more", tasks / "b.dpk"])) == ["c.dpk", "b.dpk"]
    empty = tasks / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no diffs in it"):
        stats(empty)


def test_what_is_damaged_is_told_and_the_others_are_counted(tasks):
    raw = (tasks / "a.dpk").read_bytes()
    (tasks / "a.dpk").write_bytes(raw[:-1])
    (tasks / "d.dpk").write_bytes(raw[:8] + b"\x02" + raw[9:])
    (tasks / "e.dpk").mkdir()
    found = stats([tasks, tasks / "nowhere.dpk"], keep_going=True)
    assert names(found) == ["b.dpk", "c.dpk"]
    assert [Path(item.name).name for item in found.problems] == ["a.dpk", "d.dpk", "nowhere.dpk"]
    assert [item.nbytes for item in found.problems] == [len(raw) - 1, len(raw), None]
    assert [item.error.exit_code for item in found.problems] == [11, 12, 1]
    with pytest.raises(CorruptFileError):
        stats(tasks)


def test_the_base_is_asked_of_those_that_continue_none(tasks):
    base = model()
    week = tune(base, 0.1, 5)
    diffpack.extract(base, week, tasks / "w1.dpk")
    diffpack.extract(week, tune(week, 0.1, 6), tasks / "w2.dpk")
    assert len(stats(tasks, base).diffs) == 5
    diffpack.extract(model(9), tune(model(9)), tasks / "other.dpk")
    with pytest.raises(WrongBaseError, match=r"not the base of .*other\.dpk"):
        stats(tasks, base)
    found = stats(tasks, base, keep_going=True)
    assert [Path(item.name).name for item in found.problems] == ["other.dpk"]
    assert isinstance(found.problems[0].error, WrongBaseError)
    assert len(found.diffs) == 5
    assert names(stats(tasks, model(9), keep_going=True)) == ["other.dpk"]


def test_a_base_with_other_names_is_told_so(tmp_path):
    renamed = {f"bert.{name}": array for name, array in model().items()}
    diff = diffpack.extract(model(), tune(renamed, 0.3), tmp_path / "t.dpk")
    for given in (diff, tmp_path / "t.dpk"):
        with pytest.raises(WrongBaseError, match="its tensors have other names"):
            stats(given, renamed)


def test_manifests_alone_are_read_unless_tensors_are_counted(tasks, monkeypatch):
    whole = stats(tasks)
    monkeypatch.setattr("diffpack.format.reader.ContainerReader.chunk", lambda *_, **__: pytest.fail("a chunk is read"))
    found = stats(tasks, tensors=False)
    for counted, told in zip(whole.diffs, found.diffs, strict=True):
        assert told.counted
        assert told.tensors == ()
        assert {**vars(told), "tensors": ()} == {**vars(counted), "tensors": ()}


def test_a_manifest_tells_the_most_of_dense_changes():
    base = model()
    tuned = {name: array.copy() for name, array in base.items()}
    rows = tuned["encoder.0.weight"]
    rows[: len(rows) * 3 // 4] += 1  # three quarters of all: stored for every word
    diff = diffpack.extract(base, tuned, positions="all")
    counted, told = stats(diff).diffs[0], stats(diff, tensors=False).diffs[0]
    assert counted.changed == int((rows != base["encoder.0.weight"]).sum())
    assert counted.counted
    assert not told.counted
    assert told.changed == rows.size > counted.changed


@pytest.mark.parametrize(
    "choice",
    [{"values": "f16"}, {"density": 0.1, "rule": "random 3", "values": "int8"}, {"budget": 6000},
     {"profile": "smallest"}, {"positions": "levels"}, {"values": "lowrank", "rank": 2}],
    ids=str,
)  # fmt: skip
def test_what_a_manifest_says_is_sure_or_the_most(choice):
    base = model()
    diff = diffpack.extract(base, tune(base, 0.3), **choice)
    told = stats(diff, tensors=False).diffs[0]
    counted = stats(diff).diffs[0]
    assert told.changed == counted.changed if told.counted else told.changed >= counted.changed
    assert 0 < counted.changed <= counted.result_entries


def test_diffs_are_sorted_and_chains_stay_together(tasks):
    base = model()
    week = tune(base, 0.5, 5)
    diffpack.extract(base, week, tasks / "w2.dpk")
    diffpack.extract(week, tune(week, 0.01, 6), tasks / "w10.dpk")
    found = stats(tasks)
    for by, key in SORTS.items():
        assert list(found.sorted(by).diffs) == sorted(found.diffs, key=key)
        order = [Path(item.diff.name).name for item in found.sorted(by).families[0].members]
        assert order.index("w10.dpk") == order.index("w2.dpk") + 1
    assert names(found.sorted("size"))[0] == "w2.dpk"
    assert names(found.sorted("name")) == ["a.dpk", "b.dpk", "c.dpk", "w2.dpk", "w10.dpk"]
    with pytest.raises(UsageError, match="not by 'colour'"):
        found.sorted("colour")


def test_a_budget_says_how_many_more_fit(tasks):
    found = stats(tasks)
    used = found.base_bytes + found.nbytes
    mean = found.nbytes / 3
    for more in (0, 1, 7):
        assert Budget.of(int(used + more * mean) + 1, found).more == more
    small = Budget.of(int(used - 0.5 * mean), found)
    assert (small.more, small.over) == (-1, used - int(used - 0.5 * mean))
    assert Budget.of("1MB", found).nbytes == 10**6
    for wrong in ("1%", "0.5", "much"):
        with pytest.raises(UsageError):
            Budget.of(wrong, found)
    assert Budget.of("1MB", stats([])).more == 0


def test_files_are_closed_again(tasks, monkeypatch):
    opened = []
    real = diffpack.report.given_base.open_diff
    monkeypatch.setattr(
        "diffpack.report.given_base.open_diff", lambda source: opened.append(real(source)) or opened[-1]
    )
    stats(tasks)
    for diff in opened:
        with pytest.raises((OSError, DiffpackError)):
            diff.stored(diff.chunks[0])
    kept = diffpack.open(tasks / "a.dpk")
    stats(kept)
    assert next(iter(kept.values())).positions.dtype == np.int64


def test_the_same_base_is_counted_once_and_a_stored_one_not_at_all(tmp_path):
    base = model()
    write_safetensors(tmp_path / "base.safetensors", base)
    week = tune(base, 0.1, 1)
    diffs = [diffpack.extract(base, week), diffpack.extract(week, tune(week, 0.1, 2)), diffpack.extract(base, model(3))]
    found = stats(diffs)
    size = sum(array.nbytes for array in base.values())
    assert (found.base_bytes, found.full_bytes) == (size, 3 * size)
    assert found.share_of_base == found.nbytes / size

"""What a killed run leaves is removed by the next one into that folder, what a living one writes never is."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from diffpack.errors import UsageError
from diffpack.support import leftovers, renames
from diffpack.support.atomic import atomic_file, atomic_folder
from diffpack.support.leftovers import is_temporary, restore, sweep, temporary_names
from tests.tools.killed import ended, fork, killed_at_every_step
from tests.tools.killed import leftovers as left_in

LONG = "\N{GRINNING FACE}" * 62


def write_file(path: Path, text: str = "new", replace: bool = False) -> None:
    with atomic_file(path, replace=replace) as file:
        file.write(text.encode())


def write_folder(path: Path, text: str = "new", replace: bool = False) -> None:
    with atomic_folder(path, replace=replace) as folder:
        (folder / "inside").mkdir()
        for name in ("a", "b", "inside/c"):
            (folder / name).write_text(text)


def text_of(path: Path) -> str | None:
    """What an output holds; all of its files must hold the same."""
    if path.is_dir():
        assert sorted(str(item.relative_to(path)) for item in path.rglob("*")) == ["a", "b", "inside", "inside/c"]
        (text,) = {item.read_text() for item in path.rglob("*") if item.is_file()}
        return text
    return path.read_text() if path.exists() else None


WRITERS = {"file": write_file, "folder": write_folder}


@pytest.fixture(params=["one call", "steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "steps":
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    return str(request.param)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_new_output_is_whole_or_absent_wherever_the_run_is_killed(tmp_path, way, kind):
    target, write = tmp_path / "out", WRITERS[kind]
    found = []
    for _ in killed_at_every_step(lambda: write(target)):
        found.append(text_of(target))
        other = tmp_path / "other"
        write(other)  # a run into that folder, of another output
        assert left_in(tmp_path) == []
        assert text_of(other) == "new"
        leftovers.remove(target)
        leftovers.remove(other)
    assert set(found) == {None, "new"}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_output_is_the_old_or_the_new_one_wherever_the_run_that_replaces_it_is_killed(tmp_path, way, kind):
    target, write = tmp_path / "out", WRITERS[kind]
    write(target, "old")
    found = []
    for _ in killed_at_every_step(lambda: write(target, "new", True)):
        if not target.exists():
            assert (way, kind) == ("steps", "folder")
            restore(target)
        found.append(text_of(target))
        write(target, "old", True)
        assert text_of(target) == "old"
        assert left_in(tmp_path) == []
    assert set(found) == {"old", "new"}
    assert found == sorted(found, reverse=True)  # old up to an instant, new from there on


def test_what_was_moved_away_is_back_before_the_next_run_looks_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(renames, "_renameat2", lambda: None)
    for name in ("out", LONG):
        target = tmp_path / name
        write_folder(target, "old")
        gaps = 0
        for _ in killed_at_every_step(lambda target=target: write_folder(target, "new", True)):
            if not target.exists():
                gaps += 1
                with pytest.raises(UsageError, match="exists already"):
                    write_folder(target)
                assert text_of(target) == "old"
            write_folder(target, "old", True)
        assert gaps == 1
        assert left_in(tmp_path) == []


def test_what_another_output_had_moved_away_stays_until_its_next_run(tmp_path):
    write_file(tmp_path / "there")
    write_folder(tmp_path / ".gone.0123456789ab.old", "old")
    write_folder(tmp_path / ".there.0123456789ab.old", "old")
    write_file(tmp_path / "other")
    assert left_in(tmp_path) == [".gone.0123456789ab.old"]
    write_folder(tmp_path / "gone", "new", True)
    assert text_of(tmp_path / "gone") == "new"
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_a_living_run_keeps_what_it_writes(tmp_path, kind):
    ready, go = tmp_path / "ready", tmp_path / "go"

    def slowly() -> None:
        open_output = atomic_file if kind == "file" else atomic_folder
        with open_output(tmp_path / "slow", replace=False) as output:
            if kind == "folder":
                write_folder_into(output)
            ready.touch()
            while not go.exists():
                time.sleep(0.001)

    child = fork(slowly)
    while not ready.exists():
        time.sleep(0.001)
    write_file(tmp_path / "other")
    (part,) = left_in(tmp_path)
    assert part.startswith(".slow.")
    go.touch()
    assert ended(child) == 0
    assert (tmp_path / "slow").exists()
    assert left_in(tmp_path) == []


def write_folder_into(folder: Path) -> None:
    (folder / "a").write_text("a")


def test_a_stopped_run_lives(tmp_path):
    ready = tmp_path / "ready"

    def forever() -> None:
        with atomic_file(tmp_path / "out", replace=False):
            ready.touch()
            time.sleep(600)

    child = fork(forever)
    while not ready.exists():
        time.sleep(0.001)
    os.kill(child, signal.SIGSTOP)
    sweep(tmp_path / "out")
    assert len(left_in(tmp_path)) == 1
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    sweep(tmp_path / "out")
    assert left_in(tmp_path) == []


def test_only_names_of_the_pattern_are_touched(tmp_path):
    kept = [
        ".out.part", "out.0123456789ab.part", ".out.0123456789a.part", ".out.0123456789AB.part",
        ".out.0123456789ab.parts", ".out.0123456789ab.old2", ".0123456789ab.part", "work.part", ".git",
    ]  # fmt: skip
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".out.0123456789ab.part").write_text("mine")
    (tmp_path / ".link.0123456789ab.part").symlink_to(tmp_path / "work.part")
    (tmp_path / ".folder.0123456789ab.part").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / ".pipe.0123456789ab.part")
    (tmp_path / ".out.0123456789ab.part").write_text("left")
    before = sorted(os.listdir(tmp_path))
    write_file(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted({*before, "out"} - {".out.0123456789ab.part"})
    assert os.listdir(tmp_path / "elsewhere") == [".out.0123456789ab.part"]
    assert (tmp_path / "work.part").read_text() == "mine"


def test_where_nothing_can_be_locked_nothing_is_taken_for_a_leftover(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(38, "no locks here")

    (tmp_path / ".out.0123456789ab.part").write_text("perhaps somebody's")
    monkeypatch.setattr("fcntl.flock", none)
    write_file(tmp_path / "out")
    write_folder(tmp_path / "folder")
    assert left_in(tmp_path) == [".out.0123456789ab.part"]


def test_what_is_taken_for_a_leftover_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Another run may sweep between the making of a temporary and its lock."""
    lock, swept = leftovers._lock, []

    def swept_before(descriptor: int, *, wait: bool) -> bool:
        if wait and len(swept) < 3:
            swept.append(descriptor)
            monkeypatch.setattr(leftovers, "_lock", lock)
            sweep(tmp_path / "out")
            monkeypatch.setattr(leftovers, "_lock", swept_before)
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(leftovers, "_lock", swept_before)
    write_file(tmp_path / "out")
    write_folder(tmp_path / "folder")
    assert len(swept) == 3
    assert (text_of(tmp_path / "out"), text_of(tmp_path / "folder")) == ("new", "new")
    assert left_in(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files by /proc")
def test_no_file_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for replace in (False, True):
        write_file(tmp_path / "out", replace=replace)
        write_folder(tmp_path / "folder", replace=replace)
        with (
            pytest.raises(ZeroDivisionError),
            atomic_folder(tmp_path / "failed", replace=replace) as folder,
            atomic_file(folder / "x", replace=False),
        ):
            raise ZeroDivisionError
    assert len(os.listdir("/proc/self/fd")) == before


def test_temporary_names_tell_their_outputs_apart(tmp_path):
    names = ["a", "a.b", "x" * 100, "x" * 101, "x" * 101 + "y", LONG, LONG + "z", ".hidden"]
    starts = set()
    for name in names:
        part, old = temporary_names(tmp_path / name)
        assert is_temporary(part.name)
        assert is_temporary(old.name)
        assert len(os.fsencode(part.name)) <= 143
        starts.add(part.name[: -len(".0123456789ab.part")])
    assert len(starts) == len(names)
    assert not any(map(is_temporary, names))

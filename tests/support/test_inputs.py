"""Files that change while they are read are noticed, whatever changes of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from diffpack.errors import CheckpointError, UsageError
from diffpack.support.inputs import Inputs


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))  # clocks of files are coarse


def replaced(path: Path) -> None:
    before = path.stat()
    (path.parent / "new").write_bytes(path.read_bytes())
    os.replace(path.parent / "new", path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def longer(path: Path) -> None:
    before = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: list[Callable[[Path], None]] = [overwritten, replaced, longer, Path.unlink]


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "a", tmp_path / "b", tmp_path / "missing"]
    for path in found[:2]:
        path.write_bytes(b"words of a model")
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(paths, change):
    inputs = Inputs(paths)
    inputs.check()
    change(paths[1])
    with pytest.raises(CheckpointError, match=r"b: changed while it was read; .*run it again"):
        inputs.check()
    with pytest.raises(CheckpointError, match="b: changed"), inputs.unchanged():
        pass
    Inputs(paths).check()


def body(path: Path, error: BaseException) -> None:
    """Something that fails over a file that is overwritten meanwhile."""
    with Inputs([path]).unchanged():
        overwritten(path)
        raise error


def test_what_a_changing_file_leads_to_is_not_what_is_told(paths):
    with pytest.raises(CheckpointError, match="a: changed") as told:
        body(paths[0], ValueError("positions that no tensor has"))
    assert isinstance(told.value.__cause__, ValueError)
    with pytest.raises(CheckpointError, match="became shorter"):
        body(paths[0], CheckpointError("a: became shorter"))
    with pytest.raises(KeyboardInterrupt):
        body(paths[0], KeyboardInterrupt())


def test_files_that_stay_are_no_obstacle(paths, tmp_path):
    with Inputs([*paths, tmp_path]).unchanged():
        paths[0].read_bytes()
        paths[0].chmod(0o400)
        os.link(paths[0], tmp_path / "second name")
        (tmp_path / "elsewhere").touch()
    with pytest.raises(UsageError, match="mistake"), Inputs(paths).unchanged():
        raise UsageError("mistake")

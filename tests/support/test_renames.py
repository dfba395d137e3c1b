"""A name is taken only while it is free, and two names are exchanged in one step, or that it cannot be done is said."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diffpack.support import renames
from diffpack.support.renames import exchange, move_new

WAYS = ["one call", "steps", "placeholder"]


def filled(path: Path, kind: str, text: str) -> Path:
    if kind == "folder":
        path.mkdir()
        (path / "inside").write_text(text)
    else:
        path.write_text(text)
    return path


def text_of(path: Path) -> str:
    return (path / "inside" if path.is_dir() else path).read_text()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How names are given: by the system's one call, by links and plain renames, or without links."""
    if request.param != "one call":
        monkeypatch.setattr(renames, "_renameat2", lambda: None)
    if request.param == "placeholder":

        def none(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", none)
    return str(request.param)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_free_name_is_taken(tmp_path, way, kind):
    source = filled(tmp_path / "source", kind, "new")
    move_new(source, tmp_path / "target")
    assert text_of(tmp_path / "target") == "new"
    assert sorted(os.listdir(tmp_path)) == ["target"]


@pytest.mark.parametrize("there", ["file", "folder"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_something_has_is_not_taken(tmp_path, way, kind, there):
    source, target = filled(tmp_path / "source", kind, "new"), filled(tmp_path / "target", there, "old")
    with pytest.raises(FileExistsError):
        move_new(source, target)
    assert text_of(target) == "old"
    assert text_of(source) == "new"
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_many_that_want_one_name_one_gets_it(tmp_path, way, kind):
    sources = [filled(tmp_path / str(at), kind, str(at)) for at in range(16)]

    def taken(source: Path) -> bool:
        try:
            move_new(source, tmp_path / "target")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(taken, sources))
    assert won.count(True) == 1
    assert text_of(tmp_path / "target") == str(won.index(True))
    assert len(os.listdir(tmp_path)) == 16


def test_a_placeholder_does_not_stay_where_the_name_cannot_be_given(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(renames, "_renameat2", lambda: None)
    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "replace", refused)
    source = filled(tmp_path / "source", "file", "new")
    with pytest.raises(PermissionError):
        move_new(source, tmp_path / "target")
    assert sorted(os.listdir(tmp_path)) == ["source"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
@pytest.mark.parametrize("other", ["file", "folder"])
@pytest.mark.parametrize("one", ["file", "folder"])
def test_two_names_change_places(tmp_path, one, other):
    first, second = filled(tmp_path / "a", one, "first"), filled(tmp_path / "b", other, "second")
    assert exchange(first, second)
    assert (text_of(first), text_of(second)) == ("second", "first")


def failing(number: int) -> Callable[[], Callable[..., int]]:
    def call(*_: object) -> int:
        import ctypes

        ctypes.set_errno(number)
        return -1

    return lambda: call


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_system_that_cannot_exchange_says_so_and_does_nothing(tmp_path, monkeypatch, number):
    first, second = filled(tmp_path / "a", "file", "first"), filled(tmp_path / "b", "file", "second")
    monkeypatch.setattr(renames, "_renameat2", failing(number))
    assert not exchange(first, second)
    assert (text_of(first), text_of(second)) == ("first", "second")
    move_new(first, tmp_path / "c")
    assert text_of(tmp_path / "c") == "first"


def test_other_errors_of_the_system_are_raised(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        move_new(tmp_path / "nothing", tmp_path / "target")
    monkeypatch.setattr(renames, "_renameat2", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        exchange(tmp_path / "a", tmp_path / "b")

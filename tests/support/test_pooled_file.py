"""Files of which only some are open at a time read as if all were, and are never taken for others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diffpack.errors import CheckpointError
from diffpack.support import pooled_file
from diffpack.support.pooled_file import PooledFile


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled_file, "MOST_OPEN", 2)


def files(folder: Path, count: int) -> list[PooledFile]:
    for at in range(count):
        (folder / str(at)).write_bytes(bytes([at]) * 10)
    return [PooledFile(folder / str(at)) for at in range(count)]


def first(file: PooledFile) -> int:
    with file as descriptor:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return os.read(descriptor, 1)[0]


def is_open(file: PooledFile) -> bool:
    return file._descriptor is not None


def test_those_used_last_stay_open_and_all_can_be_read(tmp_path: Path) -> None:
    opened = files(tmp_path, 5)
    assert list(map(first, opened)) == [0, 1, 2, 3, 4]
    assert list(map(is_open, opened)) == [False, False, False, True, True]
    assert first(opened[0]) == 0
    assert list(map(is_open, opened)) == [True, False, False, False, True]
    for file in opened:
        file.close()
    assert not any(map(is_open, opened))


def test_a_file_in_use_is_not_closed(tmp_path: Path) -> None:
    opened = files(tmp_path, 6)
    with opened[0] as descriptor:
        assert list(map(first, opened[1:])) == [1, 2, 3, 4, 5]
        opened[0].close()
        assert os.read(descriptor, 1) == b"\0"
    assert not is_open(opened[0])
    with pytest.raises(CheckpointError, match="after close"):
        first(opened[0])


def test_another_file_of_the_name_is_refused_once_the_first_was_closed(tmp_path: Path) -> None:
    opened = files(tmp_path, 4)
    (tmp_path / "new").write_bytes(b"x" * 10)
    os.replace(tmp_path / "new", tmp_path / "0")
    with pytest.raises(CheckpointError, match="became another file"):
        first(opened[0])
    os.replace(tmp_path / "1", tmp_path / "3")
    assert first(opened[3]) == 3  # still open
    with pytest.raises(OSError, match="No such file"):
        first(opened[1])


def test_many_threads_read_what_they_asked_for(tmp_path: Path) -> None:
    opened = files(tmp_path, 9)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: first(opened[at % 9]) == at % 9, range(900)))
    assert all(found)
    assert sum(map(is_open, opened)) <= 2

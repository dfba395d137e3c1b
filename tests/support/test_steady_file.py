"""A file that fails goes on in memory, so that the library behind it can end its work; the first error is told."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given, strategies

from diffpack.support.aside import aside
from diffpack.support.steady_file import SteadyFile

ACTIONS = strategies.lists(
    strategies.one_of(
        strategies.tuples(strategies.just("write"), strategies.integers(0, 40), strategies.binary(max_size=30)),
        strategies.tuples(strategies.just("read"), strategies.integers(0, 60), strategies.integers(0, 30)),
        strategies.tuples(strategies.just("cut"), strategies.integers(0, 60), strategies.just(0)),
    ),
    max_size=12,
)


class Full(io.FileIO):
    """A file of a disk that is full from some write on."""

    left: int

    def write(self, data: object) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return super().write(data)


@given(ACTIONS, strategies.integers(0, 12))
def test_it_is_the_same_file_before_and_after_it_failed(tmp_path_factory, actions, writes):
    path: Path = tmp_path_factory.mktemp("steady") / "file"
    plain = io.BytesIO()
    path.touch()
    with path.open("r+b") as file:
        steady = SteadyFile(file)
        full = Full(file.fileno(), "r+", closefd=False)
        full.left = writes
        steady._file = full
        failed = False
        for what, place, value in actions:
            steady.seek(place)
            plain.seek(place)
            if what == "write":
                failed = failed or (bool(value) and full.left <= 0)
                assert steady.write(value) == plain.write(value)
                assert steady.tell() == plain.tell()
            elif what == "cut" and not failed:
                steady.truncate(place)
                plain.truncate(place)
                plain.write(b"")
                if plain.seek(0, io.SEEK_END) < place:
                    plain.write(bytes(place - plain.tell()))
            elif what == "read":
                buffer = bytearray(b"?" * value)
                assert steady.readinto(buffer) == value
                assert bytes(buffer) == plain.read(value).ljust(value, b"\0")
            assert steady.seek(0, io.SEEK_END) == plain.seek(0, io.SEEK_END)
        if failed:
            with pytest.raises(OSError, match="No space"):
                steady.check()
        else:
            steady.check()
            assert path.read_bytes() == plain.getvalue()


def test_the_first_error_is_told(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        steady = SteadyFile(file)
        steady.check()
        steady.fail(KeyboardInterrupt())
        steady.fail(ValueError())
        steady.write(b"kept in memory")
        with pytest.raises(KeyboardInterrupt):
            steady.check()
    assert (tmp_path / "file").read_bytes() == b""


def test_work_aside_is_done_in_another_thread_only_if_this_is_the_main_one():
    assert aside(threading.current_thread) is not threading.main_thread()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(aside(threading.current_thread)))
    thread.start()
    thread.join()
    assert seen == [thread]


def test_errors_of_work_aside_arrive():
    stopped: list[BaseException] = []
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0, stop=stopped.append)
    assert stopped == []


@pytest.mark.parametrize("stops", [True, False])
def test_what_breaks_into_the_waiting_waits_for_the_end_of_the_work(stops):
    told, ended = threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        told.wait(30 if stops else 0.2)
        ended.set()

    def interrupt(*_: object) -> None:
        raise InterruptedError

    def stop(error: BaseException) -> None:
        assert isinstance(error, InterruptedError)
        told.set()

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(InterruptedError):
            aside(work, stop=stop if stops else None)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended.is_set()
    assert told.is_set() == stops

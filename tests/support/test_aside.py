"""Work that is done aside ends before what broke in is raised, however much breaks in."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from diffpack.support.aside import aside


class StoppedError(Exception):
    pass


@pytest.fixture
def signals() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise StoppedError

    before = signal.signal(signal.SIGUSR1, stop)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("signals")
def test_signals_in_a_row_are_one_and_the_work_ends_first() -> None:
    ended = threading.Event()
    told: list[BaseException] = []

    def work() -> None:
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)
        ended.set()

    def done_aside() -> None:
        try:
            aside(work, told.append)
        finally:  # the last of them may be heard when all is done
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    with pytest.raises(StoppedError):
        done_aside()
    assert ended.is_set()
    assert [type(error) for error in told] == [StoppedError]


def test_what_the_work_raises_is_raised() -> None:
    def fail() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        aside(fail)
    assert aside(lambda: 1) == 1

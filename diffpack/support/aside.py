"""Work that a signal must not break into."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T], stop: Callable[[BaseException], None] | None = None) -> T:
    """Do work beside the main thread and wait for it; elsewhere just do it.

    Python runs what a signal asks for in the main thread, wherever that is: in the middle of a library that calls back
    into Python, too, which then gets an exception it knows nothing of. (HDF5 loses it, and its file; or ends the
    process.) So such libraries work aside. An exception that breaks into the waiting is raised once the work has ended;
    `stop` is told it before, and may make the work end early. Further ones are not raised.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[T] = Future()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    try:
        threading.Thread(target=run).start()
        return future.result()
    except BaseException as error:
        _settle(future, error, stop)
        raise


def _settle(future: Future[T], error: BaseException, stop: Callable[[BaseException], None] | None) -> None:
    """Wait until work that has begun has ended, whatever else breaks in; what has not begun never will."""
    told = False
    while not (future.cancel() or future.done()):
        with contextlib.suppress(BaseException):  # more signals: the first is the one that is raised
            if stop is not None and not told:
                told = True
                stop(error)
            wait([future])

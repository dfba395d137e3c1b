"""Signals that ask to stop, as an exception that no `except Exception` keeps from cleaning up."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""What a terminal, a supervisor and a closed window send."""
BROKEN_PIPE = 13
"""SIGPIPE's number, also where the system has no such signal."""
_MOST_ARRIVALS = 1 << 12  # no more signals come while Python is busy elsewhere
_MOMENT = 0.01  # seconds, in which Python leaves the place that swallowed a signal's exception

_heard = 0  # the signal that came first: a process is stopped once


class Interrupted(SystemExit):
    """A signal arrived; `exit_code` is 128 + its number, as shells have it.

    It is a `SystemExit`, which every cleaning up lets pass, and not a `KeyboardInterrupt`, which click takes.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        super().__init__(self.exit_code)


def raise_on_signals() -> Callable[[], None]:
    """Let signals that ask to stop raise `Interrupted` in the main thread; those ignored now (nohup) stay so.

    Only the first does: what comes after it would break into the cleaning up, which is done once, to its end, with the
    exit code of the first. Should something swallow that exception (a destructor, a library in C), so that nothing is
    cleaned up and the process just goes on, the signal is sent again.

    Gives what is to be called when nothing is left to clean up: signals then end the process at once, or, where one
    has already stopped it, are ignored on its last steps.
    """
    first: weakref.ref[Interrupted] | None = None
    ended = False
    arrived = _arrivals()

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        global _heard
        nonlocal first
        if ended or (first is not None and first() is not None):  # it is on its way, which keeps it alive
            return
        _heard = _heard or _first(arrived, signum)
        raised = Interrupted(_heard)
        first = weakref.ref(raised, lost)
        try:
            raise raised
        finally:
            del raised  # or it would keep itself alive, by its traceback, which leads here

    def lost(_: weakref.ref[Interrupted]) -> None:
        if not ended:
            threading.Timer(_MOMENT, send_again).start()

    def send_again() -> None:
        if not ended:
            os.kill(os.getpid(), _heard)

    def end() -> None:
        nonlocal ended
        ended = True
        for number in _numbers():
            signal.signal(number, signal.SIG_IGN if _heard else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)

    for number in _numbers():
        signal.signal(number, stop)
    sys.unraisablehook = _tell_others
    return end


def heard() -> Interrupted | None:
    """The signal that asked this process to stop, if one did: libraries make errors of their own of its exception."""
    return Interrupted(_heard) if _heard else None


def _arrivals() -> int | None:
    """A pipe that tells the numbers of signals in the order they arrive in: Python takes several by their numbers."""
    if sys.platform == "win32":  # where no two arrive together
        return None
    arrived, arriving = os.pipe()
    os.set_blocking(arrived, False)
    os.set_blocking(arriving, False)
    signal.set_wakeup_fd(arriving, warn_on_full_buffer=False)
    return arrived


def _first(arrived: int | None, signum: int) -> int:
    """The signal that came first of those that ask to stop; the one at hand where nothing tells."""
    if arrived is None:
        return signum
    try:
        numbers = os.read(arrived, _MOST_ARRIVALS)
    except BlockingIOError:
        return signum
    return next((number for number in numbers if number in _numbers()), signum)


def _tell_others(swallowed: sys.UnraisableHookArgs) -> None:
    """Tell what a destructor swallows as Python does, but for signals, which are sent again."""
    if not isinstance(swallowed.exc_value, Interrupted):
        sys.__unraisablehook__(swallowed)


def _numbers() -> list[int]:
    numbers = [getattr(signal, name, None) for name in _NAMES]  # not every system has them all
    return [number for number in numbers if number is not None and signal.getsignal(number) != signal.SIG_IGN]

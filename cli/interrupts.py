"""Signals that ask to stop, as an exception that no `except Exception` keeps from cleaning up."""

from __future__ import annotations

import signal
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""What a terminal, a supervisor and a closed window send."""
BROKEN_PIPE = 13
"""SIGPIPE's number, also where the system has no such signal."""


class Interrupted(SystemExit):
    """A signal arrived; `exit_code` is 128 + its number, as shells have it.

    It is a `SystemExit`, which every cleaning up lets pass, and not a `KeyboardInterrupt`, which click takes.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        super().__init__(self.exit_code)


def raise_on_signals() -> None:
    """Let signals that ask to stop raise `Interrupted` in the main thread; those ignored now (nohup) stay so.

    The second one is ignored: it comes from impatience and would break into the cleaning up. The third raises
    again, in case something swallowed the first.
    """
    seen = 0

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        nonlocal seen
        seen += 1
        if seen != 2:
            raise Interrupted(signum)

    for number in _numbers():
        signal.signal(number, stop)


def end_on_signals() -> None:
    """Let them end the process at once again: nothing is left to clean up."""
    for number in _numbers():
        signal.signal(number, signal.SIG_DFL)


def _numbers() -> list[int]:
    numbers = [getattr(signal, name, None) for name in _NAMES]  # not every system has them all
    return [number for number in numbers if number is not None and signal.getsignal(number) != signal.SIG_IGN]

"""A progress bar on a terminal, silence elsewhere, and timings for `-v`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from .options import Session
from .output import warn

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Callback = Callable[[str, int, int], None]


@contextlib.contextmanager
def watched(session: Session, doing: str, unit: str = "bytes") -> Iterator[Callback]:
    """Give the callback the library reports to; `doing` stands beside the bar until it does.

    `unit` is what is counted: bytes, or anything else.
    """
    phases = Phases()
    bar = _bar(session, unit)
    if bar is None:
        yield phases
    else:
        with bar:
            phases.draw_on(bar, doing)
            yield phases
    if session.verbose:
        phases.tell()


class Phases:
    """Draws and times what the library does. A phase ends with its last report."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._ended: dict[str, float] = {}
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._first = ""

    def draw_on(self, bar: Progress, doing: str) -> None:
        """Start with a bar that knows no end yet."""
        self._bar, self._first = bar, doing
        self._tasks[doing] = bar.add_task(doing, total=None)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take a report, from any thread."""
        self._ended[what] = perf_counter()
        if self._bar is None:
            return
        if what not in self._tasks:
            self._bar.update(self._tasks[self._first], visible=False)
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)

    def tell(self) -> None:
        """Print the timings."""
        before = self._started
        for what, end in self._ended.items():
            warn(f"time: {what} {end - before:.2f} s")
            before = end
        warn(f"time: {perf_counter() - self._started:.2f} s in all")


def _bar(session: Session, unit: str) -> Progress | None:
    """A bar if somebody can see it."""
    if session.quiet or session.no_progress or sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )

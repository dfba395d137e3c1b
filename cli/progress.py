"""One progress bar a run on a terminal, silence elsewhere, and what each stage took for `-v`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from .options import Session
from .output import safe, warn

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Callback = Callable[[str, int, int], None]


@contextlib.contextmanager
def watched(session: Session, doing: str, unit: str = "bytes", runs: int = 1) -> Iterator[Run]:
    """Give the callback the library reports to; `doing` stands beside the bar until it does.

    `unit` is what is counted: bytes, or anything else. The bar is that of `runs` of the library's calls.
    """
    run = Run(runs, session.verbose)
    bar = _bar(session, unit)
    if bar is None:
        yield run
    else:
        with bar:
            run.draw_on(bar, doing)
            yield run
    run.tell()


class Run:
    """Draws and times what the library does: a callback, for any thread.

    Time counts to the stage that is reported at its end. Of several calls those to come are taken to be as long as
    those that were.
    """

    def __init__(self, runs: int = 1, verbose: bool = False) -> None:
        self._runs, self._verbose = runs, verbose
        self._started = self._reported = perf_counter()
        self._took: dict[str, float] = {}
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._number, self._name = 0, ""
        self._before = self._done = self._total = self._seen = 0

    def draw_on(self, bar: Progress, doing: str) -> None:
        """Start with a bar that knows no end yet."""
        self._bar = bar
        self._task = bar.add_task(doing, total=None)

    def next(self, name: str) -> Callback:
        """What the next of several calls, known by a name, is to report to."""
        if self._number and self._verbose:
            with self.aside():
                self._tell_stages()
        self._number, self._name = self._number + 1, name
        self._before, self._done, self._total = self._before + self._done, 0, 0
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take a report of the present call: what it is at, how much of all it has to do is done."""
        now = perf_counter()
        self._took[what] = self._took.get(what, 0.0) + now - self._reported
        self._reported = now
        self._seen += not self._total
        self._done, self._total = done, total
        if self._bar is None or self._task is None:
            return
        if self._runs > 1:
            what = f"{safe(self._name)} ({self._number} of {self._runs}): {what}"
            known = self._before + total
            done, total = self._before + done, known + (self._runs - self._number) * known // self._seen
        self._bar.update(self._task, description=what, completed=done, total=total)

    def end(self, what: str) -> None:
        """The present call has done all, and `what` after it."""
        self(what, self._total, self._total)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def tell(self) -> None:
        """Print what each stage took, if that is wanted."""
        if self._verbose:
            self._tell_stages()
            warn(f"time: {perf_counter() - self._started:.2f} s in all")

    def _tell_stages(self) -> None:
        of = f"{safe(self._name)}: " if self._runs > 1 else ""
        for what, seconds in self._took.items():
            warn(f"time: {of}{what} {seconds:.2f} s")
        self._took = {}


def _bar(session: Session, unit: str) -> Progress | None:
    """A bar if somebody can see it: what is done, of how much, how fast, and the time that is left."""
    if session.quiet or session.no_progress or sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {unit}/s", style="progress.data.speed")

    counted = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), Rate())
    columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn())
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )

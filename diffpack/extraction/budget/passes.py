"""One line of progress for a search that writes the diff again and again, nobody knows how often."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from diffpack.extraction.course import CHECKING, CODING, FITTING
from diffpack.support.parallel import Progress

_SHARE = 0.5
"""Part of what is left of the bar that a pass takes: it never goes back, and is nearly full however many there are."""

_PARTS = {FITTING: (0.0, 0.6), CODING: (0.6, 0.2), CHECKING: (0.8, 0.2)}
"""What of a pass is done when these begin, and how much of it they take."""


class Passes:
    """Passes over the same data, told as one: `progress` (a callback, or None) is what all of them report to.

    A context manager that fills the bar in the end.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._told = progress
        self._before = 0.0
        self._total = 0
        self._what = ""

    def next(self) -> Progress | None:
        """What another pass reports to."""
        if self._total:
            self._before += (1 - self._before) * _SHARE
        return None if self._told is None else self._report

    def _report(self, what: str, done: int, total: int) -> None:
        assert self._told is not None
        self._total = self._total or total  # that of the first pass: a bar has one length
        before, length = _PARTS[what]
        part = before + length * (done / total if total else 1)
        share = self._before + (1 - self._before) * _SHARE * part
        self._what = what
        self._told(what, int(share * self._total), self._total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._told is not None and self._total:
            self._told(self._what, self._total, self._total)

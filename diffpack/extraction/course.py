"""The progress of one extraction as one line, from its first byte to its last, through all its stages."""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.extraction.options import Options
from diffpack.extraction.scan.scan import Scan
from diffpack.format.features import CONDITIONED
from diffpack.support.parallel import Progress

SCANNING, CHOOSING, SEARCHING, FITTING = "scanning", "choosing", "searching", "fitting"
CODING, CHECKING = "coding", "checking"
PASSES = "passes"
"""Writing again and again, nobody knows how often, until a target is met: fitting, coding and checking."""

_EXACT = {CHOOSING: 10.0, CODING: 20.0}
_CONDITIONED = {CHOOSING: 60.0, CODING: 60.0}
_PREDICTED = {CHOOSING: 250.0, CODING: 70.0}
_LOSSY = {CHOOSING: 60.0, CODING: 20.0, CHECKING: 60.0}
_SEARCHED = {SEARCHING: 40.0, PASSES: 300.0}
_FACTORED = {SEARCHING: 40.0, PASSES: 800.0}
"""What a changed word takes in each stage, in bytes that are scanned in that time (0.6 ns each): of the real pair, to
half and double. More than an estimate of the time that is left cannot be made of them."""


class Course:
    """Tells `progress` how many of the tuned checkpoint's `nbytes` are done, as a part of the whole run.

    Which part a stage takes follows from how many words change, which is estimated while they are scanned. What is told
    never goes back; `whole` says that all is done.
    """

    def __init__(self, progress: Progress | None, nbytes: int, options: Options) -> None:
        self._progress = progress
        self._nbytes = nbytes
        self._per_change = _per_change(options)
        self._costs = {SCANNING: float(nbytes)} | dict.fromkeys(self._per_change, 0.0)
        if not options.exact:
            self._costs[PASSES if options.target is not None else CHECKING] += nbytes
        self._fixed = dict(self._costs)
        self._scanned = self._changed = self._told = 0

    def scanned(self, items: Sequence[Scan]) -> None:
        """Tensors were scanned."""
        if self._progress is None:
            return
        self._scanned += sum(item.pair.info.nbytes for item in items)
        self._changed += sum(item.count for item in items)
        changes = self._changed * self._nbytes / max(self._scanned, 1)
        for stage, cost in self._per_change.items():
            self._costs[stage] = self._fixed[stage] + cost * changes
        self.at(SCANNING, self._scanned, self._nbytes)

    def stage(self, stage: str) -> Progress | None:
        """What reports as others do, of a stage: the bytes done of those it has; None if nobody is told."""
        if self._progress is None:
            return None
        return lambda what, done, total: self.at(stage, done, total, what)

    def told(self, what: str, done: int, total: int) -> None:
        """The same of the stage that is called so: a `Progress`."""
        self.at(what, done, total)

    def at(self, stage: str, done: int, total: int, what: str | None = None) -> None:
        """So much of a stage is done, all before it is; `what` it is called, if not by its name."""
        if self._progress is None:
            return
        stages = list(self._costs)
        before = sum(self._costs[name] for name in stages[: stages.index(stage)])
        part = (before + self._costs[stage] * (done / total if total else 1)) / (sum(self._costs.values()) or 1)
        self._told = max(self._told, int(part * self._nbytes))
        self._progress(what or stage, self._told, self._nbytes)

    def whole(self, what: str = CODING) -> None:
        """All is done."""
        if self._progress is not None and self._told < self._nbytes:
            self._told = self._nbytes
            self._progress(what, self._nbytes, self._nbytes)


def _per_change(options: Options) -> dict[str, float]:
    if options.target is not None:
        return _SEARCHED if options.rank == 0 else _FACTORED
    if not options.exact:
        return _LOSSY
    if options.profile != CONDITIONED:
        return _EXACT
    return _CONDITIONED if options.rank == 0 else _PREDICTED

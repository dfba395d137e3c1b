"""Find where the rows of a tensor come from: vocabularies cut or re-ordered, heads interleaved.

By their content where rows are equal; where all are trained, by how near they are (`near_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.near_rows import MOST_COMPARED, ROWS, near_runs, row_blocks, row_sketches
from diffpack.extraction.scan.nearness import Sketch
from diffpack.extraction.scan.tiles import Part
from diffpack.tensors.slices import Slice
from diffpack.tensors.word_source import WordSource

_LEAST_ROW_BYTES = 32
"""Shorter rows are often equal by chance."""
_MOST_PIECES = 4096
"""A tensor of more pieces is not worth it: they cost more than most changes do."""

Hashes = npt.NDArray[np.uint64]


@dataclass
class _Run:
    """Rows [start, stop) of the whole that are those from `start + shift` on of all sources' rows; None: unknown."""

    start: int
    stop: int
    shift: int | None


class _Rows:
    """The rows, of `width` entries, of several tensors one after the other; `starts` are where each tensor's begin."""

    def __init__(self, parts: Sequence[Part], width: int) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(part.entries // width for part in parts)])
        self._width = width

    @cached_property
    def hashes(self) -> Hashes:
        """What equal rows are told by."""
        return np.concatenate([_hashes(part.words, self._width) for part in self.parts])

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """The rows in order of their hashes; of equal ones the first is the first."""
        return np.argsort(self.hashes, kind="stable")

    @cached_property
    def sketches(self) -> Sketch:
        """What near rows are told by, a column each."""
        return np.concatenate([row_sketches(part, self._width) for part in self.parts], axis=1)

    def tensor(self, row: int) -> int:
        """Which tensor a row is of."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def inside(self, first: int, last: int, like: int) -> bool:
        """Whether the rows [first, last) are all of the tensor that the row `like` is of."""
        at = self.tensor(like)
        return bool(self.starts[at] <= first and last <= self.starts[at + 1])


class RowShelf:
    """Tensors in whose rows others may be found; what tells their rows is read once."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = [part for part in parts if len(part.info.shape) > 1]
        self._rows: dict[int, _Rows] = {}
        self._compared = 0

    def slices(self, whole: Part) -> list[Slice]:
        """The slices whose rows, one after the other, are the whole's or near to them; none if that is not clear.

        Rows that no tensor has are taken to be what lies between their neighbours.
        """
        width = whole.info.shape[-1] if len(whole.info.shape) > 1 else 0
        if width * whole.words.dtype.itemsize < _LEAST_ROW_BYTES:
            return []
        if width not in self._rows:
            self._rows[width] = _Rows([part for part in self._parts if part.info.shape[-1] == width], width)
        rows = self._rows[width]
        if not rows.parts:
            return []
        wanted = _hashes(whole.words, width)
        runs = _joined(_runs(wanted, rows), wanted, rows)
        self._compared += 0 if runs else ROWS * int(rows.starts[-1])
        if not runs and self._compared <= MOST_COMPARED:
            near = near_runs(row_sketches(whole, width), rows.sketches)
            runs = _inside([_Run(start, stop, shift) for start, stop, shift in near], rows)
            if _grown(whole, runs, rows):
                return []
        return _slices(whole, runs, rows, width)


def _grown(whole: Part, runs: list[_Run], rows: _Rows) -> bool:
    """Whether a tensor begins with all rows of that of its name: resized, which merging and undoing know better."""
    if not runs or runs[0].shift is None:
        return False
    first, stop = runs[0].shift, runs[0].stop + runs[0].shift
    at = rows.tensor(first)
    return rows.parts[at].name == whole.name and bool(first == rows.starts[at] and stop == rows.starts[at + 1])


def _slices(whole: Part, runs: list[_Run], rows: _Rows, width: int) -> list[Slice]:
    if not 0 < len(runs) <= _MOST_PIECES:
        return []
    pieces: list[Slice] = []
    for run in runs:
        assert run.shift is not None
        first = run.start + run.shift
        at = rows.tensor(first)
        source, offset = rows.parts[at].name, (first - int(rows.starts[at])) * width
        pieces.append(Slice(source, False, offset, (run.stop - run.start) * width))
    if len(pieces) == 1 and any(part.info == whole.info and part.name == pieces[0].source for part in rows.parts):
        return []  # all of another tensor is no slice
    return pieces


def _inside(runs: list[_Run], rows: _Rows) -> list[_Run]:
    """Runs cut where tensors end; empty if one leaves the rows there are."""
    for run in runs:
        assert run.shift is not None
        if run.start + run.shift < 0 or run.stop + run.shift > rows.starts[-1]:
            return []
    return [part for run in runs for part in _cut_at_tensors(run, rows)]


def _hashes(words: WordSource, width: int) -> Hashes:
    """64 bits of each row: equal rows have equal ones, others hardly ever."""
    factors = np.random.default_rng(width).integers(0, 1 << 63, width, np.uint64) * np.uint64(2) + np.uint64(1)
    blocks = row_blocks(words, width)
    found = [_mixed(block.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64) for block in blocks]
    return np.concatenate([np.empty(0, np.uint64), *found])


def _mixed(products: Hashes) -> Hashes:
    """Products whose upper bits, which depend on all of a word's, reach the lower ones, too."""
    return products ^ (products >> np.uint64(29))


def _runs(wanted: Hashes, rows: _Rows) -> list[_Run]:
    """Cut the wanted rows into runs of neighbours that are neighbours among the known ones, too, or are unknown."""
    known, order = rows.hashes, rows.order
    places = np.searchsorted(known[order], wanted)
    found = order[np.minimum(places, known.size - 1)]
    there = known[found] == wanted
    shifts = np.where(there, found - np.arange(wanted.size), np.iinfo(np.int64).min)
    cuts = [0, *(np.flatnonzero(shifts[1:] != shifts[:-1]) + 1).tolist(), wanted.size]
    return [_Run(start, stop, int(shifts[start]) if there[start] else None) for start, stop in pairwise(cuts)]


def _joined(runs: list[_Run], wanted: Hashes, rows: _Rows) -> list[_Run]:
    """Let runs go on over rows that are equal to others as well, and over unknown ones; empty if some find no place."""
    joined: list[_Run] = []
    for run in runs:
        before = joined[-1] if joined else None
        if before is not None and _goes_on(before, run, wanted, rows):
            before.stop = run.stop
            continue
        if before is not None and before.shift is None:  # unknown rows at the start of a tensor: go back
            if run.shift is None or not rows.inside(
                before.start + run.shift, run.stop + run.shift, run.start + run.shift
            ):
                return []
            joined.pop()
            run.start = before.start
        joined.extend(_cut_at_tensors(run, rows))
    return joined if joined and all(run.shift is not None for run in joined) else []


def _goes_on(before: _Run, run: _Run, wanted: Hashes, rows: _Rows) -> bool:
    """Whether a run goes on with the rows of the next one, which are unknown or equal to what follows it."""
    if before.shift is None:
        return False
    first, last = run.start + before.shift, run.stop + before.shift
    if first < 0 or last > rows.hashes.size or not rows.inside(first, last, first - 1):
        return False
    return run.shift is None or bool((rows.hashes[first:last] == wanted[run.start : run.stop]).all())


def _cut_at_tensors(run: _Run, rows: _Rows) -> list[_Run]:
    """Cut a run where the rows of one tensor end and those of the next begin."""
    if run.shift is None:
        return [run]
    cuts = [run.start]
    while cuts[-1] < run.stop:
        end = int(rows.starts[rows.tensor(cuts[-1] + run.shift) + 1]) - run.shift
        cuts.append(min(end, run.stop))
    return [_Run(a, b, run.shift) for a, b in pairwise(cuts)]

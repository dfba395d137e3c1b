"""Find where the rows of a tensor come from, by their content: vocabularies cut or re-ordered, heads interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.tiles import Part
from diffpack.tensors.info import BLOCK_WORDS
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


@dataclass(frozen=True)
class _Rows:
    """The rows of several tensors one after the other, and where each tensor's begin and end."""

    parts: Sequence[Part]
    starts: npt.NDArray[np.int64]
    hashes: Hashes

    def tensor(self, row: int) -> int:
        """Which tensor a row is of."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def inside(self, first: int, last: int, like: int) -> bool:
        """Whether the rows [first, last) are all of the tensor that the row `like` is of."""
        at = self.tensor(like)
        return bool(self.starts[at] <= first and last <= self.starts[at + 1])


def by_rows(whole: Part, sources: Sequence[Part]) -> list[Slice]:
    """The slices of sources whose rows, by their content, are the whole's; none if that is not clear.

    Rows that no source has are taken to be what lies between their neighbours.
    """
    width = whole.info.shape[-1] if len(whole.info.shape) > 1 else 0
    alike = [part for part in sources if len(part.info.shape) > 1 and part.info.shape[-1] == width]
    if width * whole.words.dtype.itemsize < _LEAST_ROW_BYTES or not alike:
        return []
    starts = np.cumsum([0, *(part.entries // width for part in alike)])
    rows = _Rows(alike, starts, np.concatenate([_hashes(part.words, width) for part in alike]))
    wanted = _hashes(whole.words, width)
    runs = _joined(_runs(wanted, rows.hashes), wanted, rows)
    if not 0 < len(runs) <= _MOST_PIECES:
        return []
    pieces: list[Slice] = []
    for run in runs:
        assert run.shift is not None
        first = run.start + run.shift
        at = rows.tensor(first)
        pieces.append(Slice(alike[at].name, False, (first - int(starts[at])) * width, (run.stop - run.start) * width))
    if len(pieces) == 1 and any(part.info == whole.info and part.name == pieces[0].source for part in alike):
        return []  # all of another tensor is no slice
    return pieces


def _hashes(words: WordSource, width: int) -> Hashes:
    """64 bits of each row: equal rows have equal ones, others hardly ever."""
    factors = np.random.default_rng(width).integers(0, 1 << 63, width, np.uint64) * np.uint64(2) + np.uint64(1)
    step = max(BLOCK_WORDS // width, 1) * width
    found = [np.empty(0, np.uint64)]
    for start in range(0, words.size, step):
        block = words[start : start + step].reshape(-1, width)
        found.append(_mixed(block.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64))
    return np.concatenate(found)


def _mixed(products: Hashes) -> Hashes:
    """Products whose upper bits, which depend on all of a word's, reach the lower ones, too."""
    return products ^ (products >> np.uint64(29))


def _runs(wanted: Hashes, known: Hashes) -> list[_Run]:
    """Cut the wanted rows into runs of neighbours that are neighbours among the known ones, too, or are unknown."""
    order = np.argsort(known, kind="stable")  # of equal rows the first is found
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

"""Find runs of rows that are near to others: a vocabulary that was cut, and then trained so that no row is equal.

A few rows are looked for among all. Where two of them have moved equally far, so have those between them; where not,
the border is found by halving.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from diffpack.extraction.scan.nearness import FAR, Sketch, coarse, distance
from diffpack.extraction.scan.tiles import Part
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import BLOCK_WORDS
from diffpack.tensors.word_source import WordSource

_WORDS = 16
"""Words of a row by which it is told."""
_NEAR = 0.25
"""The share of the greatest distance below which rows are near. Of many strangers the nearest is at about half."""
ROWS = 64
"""Rows that are looked for first."""
_MOST_LOOKED_FOR = 1024
"""Rows looked for at most: a thousand take a second or two among those of a vocabulary."""
MOST_COMPARED = 1 << 27
"""Rows compared with rows at most, for all tensors of a checkpoint: some seconds. A vocabulary takes a hundredth."""
_NEIGHBOURS = 8
"""Rows tried in place of one that nothing is near to."""


def row_blocks(words: WordSource, width: int) -> Iterator[Words]:
    """The rows of `width` words of a tensor, as many at once as a block holds: arrays of (rows, width)."""
    step = max(BLOCK_WORDS // width, 1) * width
    for start in range(0, words.size, step):
        yield words[start : start + step].reshape(-1, width)


def row_sketches(part: Part, width: int) -> Sketch:
    """A few words of each row of a tensor, made coarse; a column for each row."""
    columns = np.unique(np.linspace(0, width - 1, _WORDS).astype(int))
    found: list[Sketch] = [np.empty((columns.size, 0), np.int16)]
    for rows in row_blocks(part.words, width):
        block = rows[:, columns]
        found.append(coarse(np.ascontiguousarray(block).reshape(-1), part.info.dtype).reshape(block.shape).T)
    return np.ascontiguousarray(np.concatenate(found, axis=1))


def near_runs(wanted: Sketch, known: Sketch) -> list[tuple[int, int, int]]:
    """Cut the wanted rows into runs (start, stop, shift) that are near to the known rows from start + shift on.

    Empty if most rows are near to none, or runs are too many to be found. Takes `ROWS` looks among all known rows where
    nothing is near.
    """
    if not wanted.shape[1] or not known.shape[1]:
        return []
    search = _Search(wanted, known)
    rows = np.unique(np.linspace(0, wanted.shape[1] - 1, ROWS).astype(int)).tolist()
    shifts = {row: shift for row in rows if (shift := search.shift(row)) is not None}
    if 2 * len(shifts) <= len(rows):
        return []
    borders: list[tuple[int, int]] = [(0, next(iter(shifts.values())))]
    for first, last in pairwise(shifts):
        borders += search.borders(first, shifts[first], last, shifts[last])
    if search.looked_for > _MOST_LOOKED_FOR:
        return []
    ends = [start for start, _ in borders[1:]] + [wanted.shape[1]]
    return [(start, end, shift) for (start, shift), end in zip(borders, ends, strict=True)]


class _Search:
    """Wanted rows, looked for among the known ones; counted."""

    def __init__(self, wanted: Sketch, known: Sketch) -> None:
        self._wanted, self._known = wanted, known
        self.looked_for = 0

    def shift(self, row: int) -> int | None:
        """How far from a row the known one is that is nearest to it; None if none is near, or several are."""
        self.looked_for += 1
        sketch = self._wanted[:, row]
        steps = distance(self._known, sketch)
        nearest = int(np.argmin(steps))
        most = _NEAR * FAR * sketch.size
        return nearest - row if steps[nearest] <= most and np.count_nonzero(steps <= most) == 1 else None

    def borders(self, first: int, shift: int, last: int, last_shift: int) -> Iterator[tuple[int, int]]:
        """(row, shift) where runs begin between two rows, which are `shift` and `last_shift` away."""
        if shift == last_shift or self.looked_for > _MOST_LOOKED_FOR:
            return
        middle, found = self._between(first, last)
        if found is None:
            yield last, last_shift
            return
        yield from self.borders(first, shift, middle, found)
        yield from self.borders(middle, found, last, last_shift)

    def _between(self, first: int, last: int) -> tuple[int, int | None]:
        """A row about half-way between two, and its shift; None if no row there is near to a known one."""
        half = (first + last) // 2
        for at in range(_NEIGHBOURS):
            for row in {half - at, half + at}:
                if first < row < last and (shift := self.shift(row)) is not None:
                    return row, shift
        return half, None

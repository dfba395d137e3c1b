"""Where a tensor's words differ and by which steps, kept between scan and coding in little memory.

Of a position the lowest 16 bits are kept, and how many positions lie before each page of 2^16 words: two bytes a change
instead of eight, and those of its step. A model of 4 GB of which 3 % change has 66 million of them.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DType, Positions

_PAGE_BITS = 16
PAGE_WORDS = 1 << _PAGE_BITS

Low = npt.NDArray[np.uint16]


class KeptChanges:
    """The changes of a tensor, in order of position.

    `low` are the lowest 16 bits of each position, `steps` the exact steps (of the dtype's step), `ends` says how many
    changes there are up to the end of each page (None: all are in the first).
    """

    __slots__ = ("_ends", "_low", "steps")

    def __init__(self, low: Low, steps: Numbers, ends: npt.NDArray[np.int64] | None = None) -> None:
        self._low = low
        self.steps = steps
        self._ends = ends

    @classmethod
    def none(cls, dtype: DType) -> Self:
        """None of a tensor."""
        return cls(np.empty(0, np.uint16), np.empty(0, dtype.step))

    @property
    def size(self) -> int:
        """How many there are."""
        return self._low.size

    @property
    def nbytes(self) -> int:
        """The bytes they are kept in."""
        return self._low.nbytes + self.steps.nbytes + (0 if self._ends is None else self._ends.nbytes)

    def positions(self, first: int = 0, last: int | None = None) -> Positions:
        """The positions of changes number [first, last)."""
        found: Positions = self._low[first:last].astype(np.int64)
        if self._ends is not None and found.size:
            last = first + found.size
            page, final = (int(at) for at in self._ends.searchsorted([first, last - 1], "right"))
            ends = np.minimum(self._ends[page : final + 1], last)
            found += np.repeat(np.arange(page, final + 1) << _PAGE_BITS, np.diff(ends, prepend=first))
        return found

    def before(self, word: int) -> int:
        """How many changes are at positions before `word`."""
        page = word >> _PAGE_BITS
        first, last = 0, self.size
        if self._ends is None:
            if page:
                return last
        elif page >= self._ends.size:
            return last
        else:
            first, last = int(self._ends[page - 1]) if page else 0, int(self._ends[page])
        return first + int(self._low[first:last].searchsorted(np.uint16(word & (PAGE_WORDS - 1))))

    def between(self, start: int, stop: int) -> Positions:
        """The positions in [start, stop)."""
        return self.positions(self.before(start), self.before(stop))


class Gathered:
    """Changes of a tensor of so many words, as they are found."""

    def __init__(self, words: int, dtype: DType) -> None:
        self._low: list[Low] = [np.empty(0, np.uint16)]
        self._steps: list[Numbers] = [np.empty(0, dtype.step)]
        self._pages = np.zeros(-(-words // PAGE_WORDS), np.int64)  # how many are in each

    def add(self, positions: Positions, steps: Numbers) -> None:
        """Take some more, after those before, at sorted positions."""
        if positions.size:
            self._low.append(lowest(positions))
            self._steps.append(steps)
            first, last = int(positions[0]) >> _PAGE_BITS, int(positions[-1]) >> _PAGE_BITS
            edges = np.arange(first, last + 2) << _PAGE_BITS
            self._pages[first : last + 1] += np.diff(positions.searchsorted(edges))

    def kept(self) -> KeptChanges:
        """All of them."""
        return KeptChanges(np.concatenate(self._low), np.concatenate(self._steps), np.cumsum(self._pages))


def lowest(positions: Positions) -> Low:
    """The bits of positions that tell them from others of their page."""
    return positions.astype(np.uint16)

"""Words put into classes by their keys, and which word of its class each one is: split(keys) of the specification.

Where few words change, these are looked up: the rank of a word in its class, and the word of a rank. Where many do,
all words are sorted by their classes. Both is one walk over the keys (`_walk`, compiled where that was possible), or
done with numpy, which gives the same, slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.format.positions.bits import Bits
from diffpack.tensors.dtypes import Positions

try:
    from diffpack.format.positions import _walk
except ImportError:  # it was not compiled when this was installed
    _walk = None  # type: ignore[assignment]  # a module, or nothing

CLASS_WORDS = 4096
"""Neighbouring keys share a class until it has this many words: a smaller one costs more than it tells."""
_PAIRS = 1 << 17  # keys of a byte from which counting them two by two pays for its table
_BLOCK = 1 << 18  # keys counted at once: the copies numpy makes of them stay in cache
_SORTED_WORD, _LAID_WORD, _MASKED_WORD, _LOOKED_UP = 7.0, 2.0, 0.08, 30.0
"""What it costs with numpy, as ratios (about nanoseconds): to sort a word, to lay one out if runs are sorted, to mark
one for a class, to look a change up."""
_FEW_RANKED = 1 / 4
"""Up to this part of words that change, looking them up is faster than sorting all, where both are compiled."""

Keys = npt.NDArray[Any]  # unsigned, of 8 or 16 bits
Lengths = npt.NDArray[np.int64]
Change = tuple[int, Positions | None, npt.NDArray[Any]]
"""What changes in a class: its index, the ranks of its words that change (None: all), and their numbers."""


@dataclass(frozen=True)
class Split:
    """The classes of a span: of each its smallest and largest key, and how many words it has.

    `keys` are those of the words, or with `runs` those of runs of so many words each. None if there is one class,
    whatever they are.
    """

    keys: Keys | None
    lows: list[int]
    highs: list[int]
    sizes: list[int]
    runs: Lengths | None = None

    @classmethod
    def whole(cls, words: int) -> Split:
        """Put all words of a span into one class."""
        return cls(None, [0], [0], [words])

    @classmethod
    def by(cls, keys: npt.NDArray[Any], runs: Lengths | None = None) -> Split:
        """Put words into classes, from the smallest key up.

        `keys` are integers (1-D), one a word, or one for each run of so many words (each at least 1). They are counted,
        so their range should be small.
        """
        if not keys.size:
            return cls(None, [], [], [])
        keys = _narrowed(keys)
        counts = _counts(keys) if runs is None else np.bincount(keys, runs).astype(np.int64)
        lows, highs, sizes = classes_of(counts)
        if len(sizes) == 1:
            return cls.whole(sizes[0])
        if keys.dtype.itemsize > 2:
            own = _taken(_table(lows, counts.size), keys)
            return cls(own, list(range(len(lows))), list(range(len(lows))), sizes, runs)
        return cls(keys, lows, highs, sizes, runs)

    def __len__(self) -> int:
        """How many classes there are."""
        return len(self.sizes)

    @property
    def words(self) -> int:
        """How many words there are."""
        return sum(self.sizes)

    @cached_property
    def bounds(self) -> list[int]:
        """Where each class begins in `order`, and where the last ends."""
        return list(accumulate(self.sizes, initial=0))

    def few(self, changes: int, classes: int) -> bool:
        """Say whether so many changes in so many classes are looked up faster than all words are sorted."""
        if self.keys is None:
            return True
        if _walk is not None:
            return changes < self.words * _FEW_RANKED
        looked_up = changes * _LOOKED_UP + self.words * classes * _MASKED_WORD
        sorting = _SORTED_WORD if self.runs is None else _LAID_WORD
        return looked_up < self.words * sorting

    def order(self) -> Positions:
        """All words, class by class, in each in the order of the line."""
        if self.keys is None:
            return np.arange(self.words)
        if _walk is not None and self.runs is None:
            found = np.empty(self.words, np.int64)
            _walk.order(self.keys, self.keys.itemsize, self._table, np.array(self.bounds[:-1], np.int64), found)
            return found
        order = np.argsort(self._classes(self.keys), kind="stable")  # a radix sort for numbers this small
        if self.runs is None:
            return order
        lengths = self.runs[order]
        first = (np.cumsum(self.runs) - self.runs)[order]
        return np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(self.words)

    def ranks(self, places: Positions) -> Iterator[tuple[int, Positions, Positions]]:
        """Each class with some of the words `places` (sorted): which of `places` these are, and their ranks in it."""
        if self.keys is None:
            if places.size:
                yield 0, np.arange(places.size), places
            return
        found: Positions | None = None
        if _walk is not None:
            classes, found = np.empty(places.size, np.uint16), np.empty(places.size, np.int64)
            seen = np.zeros(len(self), np.int64)
            _walk.ranks(self._keys, self._keys.itemsize, self._table, seen, places, classes, found)
            own = classes.astype(self._class_dtype, copy=False)
        else:
            own = self._classes(self._keys[places])
        which = np.argsort(own, kind="stable")
        ends = np.cumsum(np.bincount(own, minlength=len(self)))
        for index, part in enumerate(np.split(which, ends[:-1])):
            if part.size:
                yield index, part, self._bits(index).ranks(places[part]) if found is None else found[part]

    def select(self, ranks: Sequence[tuple[int, Positions]]) -> list[Positions]:
        """The words that have these ranks in their classes.

        They are given class by class, by index, and each sorted and less than the size of the class.
        """
        if self.keys is None:
            return [own for _, own in ranks]
        if _walk is None:
            return [self._bits(index).select(own) for index, own in ranks]
        sizes = np.zeros(len(self), np.int64)
        sizes[[index for index, _ in ranks]] = [own.size for _, own in ranks]
        bounds, sought = (
            np.append(0, np.cumsum(sizes)),
            np.concatenate([np.empty(0, np.int64)] + [own for _, own in ranks]),
        )
        found = np.empty(sought.size, np.int64)
        _walk.select(self._keys, self._keys.itemsize, self._table, bounds, sought, found)
        return [found[bounds[index] : bounds[index + 1]] for index, _ in ranks]

    def fill(self, dense: npt.NDArray[Any], changes: Sequence[Change]) -> None:
        """Write the numbers of classes to their words in `dense`, an array of zeros with one for each word."""
        if self.few(sum(int(np.count_nonzero(numbers)) for _, _, numbers in changes), len(changes)):
            changes = [_without_zeros(change) for change in changes]
            ranked = [(index, ranks) for index, ranks, _ in changes if ranks is not None]
            for places, (_, _, numbers) in zip(self.select(ranked), changes, strict=True):
                dense[places] = numbers
            return
        order = self.order()
        for index, ranks, numbers in changes:
            own = order[self.bounds[index] : self.bounds[index + 1]]
            dense[own if ranks is None else own[ranks]] = numbers

    @property
    def _class_dtype(self) -> type[np.uint8 | np.uint16]:
        return np.uint8 if len(self) <= 1 << 8 else np.uint16

    @cached_property
    def _table(self) -> npt.NDArray[np.uint16]:
        """The class of every key that so many bytes can hold."""
        assert self.keys is not None
        return _table(self.lows, 1 << 8 * self.keys.itemsize)

    def _classes(self, keys: Keys) -> npt.NDArray[Any]:
        """The class of each key."""
        return _taken(self._table.astype(self._class_dtype), keys)

    @cached_property
    def _keys(self) -> Keys:
        """The key of each word, where there are several classes."""
        assert self.keys is not None
        return self.keys if self.runs is None else np.repeat(self.keys, self.runs)

    def _bits(self, index: int) -> Bits:
        """Which words are in a class."""
        keys, low, high = self._keys, self.lows[index], self.highs[index]
        if low == high:
            return Bits.of(keys == low)
        if not index:
            return Bits.of(keys <= high)
        if index == len(self) - 1:
            return Bits.of(keys >= low)
        return Bits.of(keys - keys.dtype.type(low) <= high - low)


def classes_of(counts: npt.NDArray[np.int64]) -> tuple[list[int], list[int], list[int]]:
    """The classes that keys make, by how many words have each: of each class its lowest and highest key, and its words.

    From the smallest key up; a class ends where it has enough words, and what is left over joins the last.
    """
    present = np.flatnonzero(counts)
    lows, highs, sizes = [int(present[0])], [0], [0]
    for key, count in zip(present.tolist(), counts[present].tolist(), strict=True):
        if sizes[-1] >= CLASS_WORDS:
            lows.append(key)
            highs.append(key)
            sizes.append(0)
        highs[-1] = key
        sizes[-1] += count
    if len(sizes) > 1 and sizes[-1] < CLASS_WORDS:
        left = sizes.pop()
        lows.pop()
        sizes[-1] += left
        highs[-2:] = highs[-1:]
    return lows, highs, sizes


def _narrowed(keys: npt.NDArray[Any]) -> Keys:
    """The keys less the smallest, in as few bytes as hold them; those of one byte as they are."""
    if keys.dtype == np.uint8:
        return np.ascontiguousarray(keys)
    low, high = int(keys.min()), int(keys.max())
    width = high - low
    dtype = np.uint8 if width < 1 << 8 else np.uint16 if width < 1 << 16 else np.uint32
    narrowed: Keys = np.subtract(keys, keys.dtype.type(low), dtype=keys.dtype).astype(dtype)
    return narrowed


def _counts(keys: Keys) -> npt.NDArray[np.int64]:
    """How often each key occurs."""
    if _walk is not None and keys.itemsize <= 2:
        counts = np.zeros(1 << 8 * keys.itemsize, np.int64)
        _walk.count(keys, keys.itemsize, counts)
        return counts
    if keys.dtype == np.uint8 and keys.size >= _PAIRS:
        pairs = keys[: keys.size // 2 * 2].view(np.uint16)
        table = _counted(pairs, 1 << 16).reshape(1 << 8, 1 << 8)
        both: npt.NDArray[np.int64] = table.sum(axis=0) + table.sum(axis=1)
        if keys.size % 2:
            both[keys[-1]] += 1
        return both
    return _counted(keys, int(keys.max()) + 1)


def _counted(keys: Keys, count: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(count, np.int64)
    block = max(_BLOCK, count)
    for start in range(0, keys.size, block):
        counts += np.bincount(keys[start : start + block], minlength=count)
    return counts


def _table(lows: Sequence[int], keys: int) -> npt.NDArray[np.uint16]:
    """The class of each of so many keys, the smallest keys of classes being given."""
    table: npt.NDArray[np.uint16] = np.searchsorted(lows[1:], np.arange(keys), side="right").astype(np.uint16)
    return table


def _taken(table: npt.NDArray[Any], keys: Keys) -> npt.NDArray[Any]:
    """The table's item for each key, none of which is beyond it."""
    taken = np.empty(keys.size, table.dtype)
    for start in range(0, keys.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        table.take(keys[part], out=taken[part], mode="clip")  # checking them would take longer
    return taken


def _without_zeros(change: Change) -> Change:
    """The same change, saying which words of the class it changes."""
    index, ranks, numbers = change
    if ranks is None:
        ranks = np.flatnonzero(numbers != 0)
        numbers = numbers[ranks]
    return index, ranks, numbers

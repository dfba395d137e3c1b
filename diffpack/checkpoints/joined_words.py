"""Words of several tensors as one line of words, so that many small tensors are read as one large one is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from diffpack.checkpoints.weights_file import FileWords
from diffpack.tensors.dtypes import Words
from diffpack.tensors.word_source import Part, WordSource


def joined(sources: Sequence[WordSource]) -> WordSource:
    """The words of sources of one word dtype (one at least), one after the other, as one source.

    Those that lie so in a file are read at once. Raises as these sources do, when a part is read.
    """
    parts = list(_neighbours_together(sources))
    return parts[0] if len(parts) == 1 else JoinedWords(parts)


def _neighbours_together(sources: Sequence[WordSource]) -> Iterator[WordSource]:
    """The sources, those that follow one another in one file as one."""
    first: FileWords | None = None
    count = end = 0
    for source in sources:
        if not isinstance(source, FileWords):
            if first is not None:
                yield first.longer(count)
            first = None
            yield source
        elif first is not None and source.file is first.file and source.offset == end:
            count += source.size
            end += source.size * source.dtype.itemsize
        else:
            if first is not None:
                yield first.longer(count)
            first, count, end = source, source.size, source.offset + source.size * source.dtype.itemsize
    if first is not None:
        yield first.longer(count)


class JoinedWords:
    """The words of several sources one after the other (a `WordSource`)."""

    def __init__(self, parts: Sequence[WordSource]) -> None:
        self._parts = parts
        self._starts = list(accumulate((part.size for part in parts), initial=0))
        self.size = self._starts.pop()
        self.dtype: np.dtype[Any] = parts[0].dtype

    def __getitem__(self, part: Part, /) -> Words:
        """The words of a slice of step 1, or at increasing positions."""
        if isinstance(part, slice):
            start, stop, _ = part.indices(self.size)
            found = [self._parts[at][first:last] for at, first, last in self._touched(start, stop)]
        else:
            ends = [*self._starts[1:], self.size]
            cuts = np.searchsorted(part, ends).tolist()
            found = [
                source[part[low:high] - start]
                for source, start, low, high in zip(self._parts, self._starts, [0, *cuts], cuts, strict=False)
                if high > low
            ]
        if len(found) == 1:
            return found[0]
        words = np.concatenate([np.empty(0, self.dtype), *found])
        words.flags.writeable = False
        return words

    def _touched(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The parts with words in [start, stop), and which of their words these are."""
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            first, end = self._starts[at], self._starts[at] + self._parts[at].size
            upto = min(stop, end)
            if upto > start:
                yield at, start - first, upto - first
            start, at = max(start, upto), at + 1

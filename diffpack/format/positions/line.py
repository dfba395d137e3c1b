"""The line of a group: the words of its records one after the other, and the spans it is cut into."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from diffpack.errors import BaseNeededError
from diffpack.format.manifest import Group
from diffpack.format.streams import Numbers
from diffpack.format.values import VALUE_CODINGS
from diffpack.support.cache import Cache
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.reference import Reference


class Line:
    """A group as one run of words.

    `references` gives a record's reference by name, where the base is at hand. `where` is what errors call the diff.
    `derived` keeps the positions in a record that a coding derives rather than reads, by the record's number.
    """

    def __init__(self, group: Group, where: str, references: Callable[[str], Reference] | None = None) -> None:
        self.group = group
        self.dtype = group.tensor_dtype
        self.value_coding = VALUE_CODINGS[group.value_coding_id]
        self.where = where
        self.references = references
        self.starts = list(accumulate((self.dtype.words(shape) for shape in group.shapes), initial=0))
        self.derived: Cache[int, Positions] = Cache(lambda positions: positions.nbytes)

    def words(self, record: int) -> int:
        """Give how many words a record has."""
        return self.starts[record + 1] - self.starts[record]

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Give the records with words in a part of the line, and which of their words these are."""
        record = bisect_right(self.starts, start) - 1
        while start < stop:
            first, end = self.starts[record], min(stop, self.starts[record + 1])
            if end > start:
                yield record, start - first, end - first
            start, record = end, record + 1


@dataclass(frozen=True)
class Span:
    """The words [start, stop) of a line, which one chunk holds; `where` is what errors call it."""

    line: Line
    start: int
    stop: int
    where: str

    @property
    def words(self) -> int:
        """How many words it has."""
        return self.stop - self.start

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Give the records with words in it, and which of their words these are."""
        return self.line.parts(self.start, self.stop)

    def reference(self) -> Words:
        """Give its reference words. Raises `BaseNeededError`."""
        line = self.line
        if line.references is None:
            raise BaseNeededError(f"{line.where}: {line.group.names[0]!r} and others are coded against the base")
        parts = [np.empty(0, line.dtype.word)]
        for record, first, last in self.parts():
            parts.append(line.references(line.group.names[record]).slice(first, last))
        return np.concatenate(parts)

    def check_numbers(self, numbers: Numbers) -> None:
        """Check a stream of numbers by the group's value coding. Raises `CorruptFileError`."""
        self.line.value_coding.check(numbers, self.line.dtype, self.where)

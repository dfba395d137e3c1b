"""The words that the rule of a group chooses, record by record; each record's are derived once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from diffpack.errors import BaseNeededError, CorruptFileError
from diffpack.format.manifest import Group
from diffpack.format.positions import rule
from diffpack.format.positions.gaps import Positions
from diffpack.format.positions.rule import Rule
from diffpack.support.cache import Recent
from diffpack.tensors.reference import Reference

Part = tuple[int, int, int]
"""A record's number, and a range [start, stop) of its words."""


class Chosen:
    """The chosen words of a `rule` group. `references` gives a record's reference, by name, where the base is known."""

    def __init__(self, group: Group, where: str, references: Callable[[str], Reference] | None) -> None:
        read = Rule.parse(group.rule or "")
        assert read is not None
        assert group.counts is not None
        self._rule = read
        self._counts = group.counts
        self._words = [group.tensor_dtype.words(shape) for shape in group.shapes]
        self._names = group.names
        self._where = where
        self._references = references
        self._records = Recent(self._derive, lambda positions: positions.nbytes)

    def within(self, record: int, start: int, stop: int) -> Positions:
        """Give the chosen words of [start, stop) of a record. Raises `BaseNeededError`, `CorruptFileError`."""
        found = self._records.get(record)
        low, high = np.searchsorted(found, [start, stop])
        return found[low:high]

    def bounds(self, parts: Iterable[Part]) -> tuple[int, int]:
        """Give how many words at least, and at most, are chosen in parts of records, whichever these are."""
        least = most = 0
        for record, start, stop in parts:
            count, outside = self._counts[record], self._words[record] - (stop - start)
            least += max(0, count - outside)
            most += min(count, stop - start)
        return least, most

    def _derive(self, record: int) -> Positions:
        name, count, words = self._names[record], self._counts[record], self._words[record]
        try:
            if not self._rule.by_weight:
                return rule.at_random(self._rule, name, words, count)
            if self._references is None:
                raise BaseNeededError(f"{self._where}: the base tells which words of {name!r} change")
            return rule.by_weight(self._rule, self._references(name).slice(0, words), count)
        except MemoryError:
            raise CorruptFileError(f"{self._where}: {name!r} is too large for this machine", "F8") from None

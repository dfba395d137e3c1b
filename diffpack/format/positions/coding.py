"""What a position coding is, and the spans it works on.

The words of a group's records stand on one line, one record after the other; a chunk holds a span of it. A position
coding says which words of a span change, and how that is stored, checked, decoded and encoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from diffpack.errors import BaseNeededError, CorruptFileError
from diffpack.format.manifest import Group
from diffpack.format.streams import Numbers
from diffpack.format.values import VALUE_CODINGS, ValueCoding
from diffpack.support.cache import KEPT_BYTES, Cache
from diffpack.tensors.dtypes import Positions, Words, exponents
from diffpack.tensors.info import blocks
from diffpack.tensors.reference import Reference

Decoded = tuple[Positions | None, Numbers]
"""Positions on the line (None: every word of the span), and their numbers."""
CONTEXTS = ("rows", "columns", "exponent")
"""By what words may be put into classes."""


class Line:
    """A group as one run of words.

    `references` gives a record's reference by name, where the base is at hand. `where` is what errors call the diff.
    `derived` keeps the positions in a record that a coding derives rather than reads, by the record's number: the last
    `kept_bytes` of them.
    """

    def __init__(
        self,
        group: Group,
        where: str,
        references: Callable[[str], Reference] | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.group = group
        self.dtype = group.tensor_dtype
        self.value_coding = VALUE_CODINGS[group.value_coding_id]
        self.where = where
        self.references = references
        self.starts = list(accumulate((self.dtype.words(shape) for shape in group.shapes), initial=0))
        self.derived: Cache[int, Positions] = Cache(lambda positions: positions.nbytes, kept_bytes)

    def words(self, record: int) -> int:
        """How many words a record has."""
        return self.starts[record + 1] - self.starts[record]

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The records with words in a part of the line, and which of their words these are."""
        record = bisect_right(self.starts, start) - 1
        while start < stop:
            first, end = self.starts[record], min(stop, self.starts[record + 1])
            if end > start:
                yield record, start - first, end - first
            start, record = end, record + 1


@dataclass(frozen=True)
class Span:
    """The words [start, stop) of a line, which one chunk holds; `where` is what errors call it.

    `predicted` are what steps are taken from, where that is not the reference but what factors make of it.
    """

    line: Line
    start: int
    stop: int
    where: str
    predicted: Words | None = None

    @property
    def words(self) -> int:
        """How many words it has."""
        return self.stop - self.start

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """The records with words in it, and which of their words these are."""
        return self.line.parts(self.start, self.stop)

    def reference(self) -> Words:
        """Its reference words. Raises `BaseNeededError`."""
        parts = [reference.slice(first, last) for reference, first, last in self._references()]
        return np.concatenate([np.empty(0, self.line.dtype.word), *parts])

    def exponents(self) -> npt.NDArray[Any]:
        """The exponents of the words that steps are taken from: those predicted, else the reference.

        Of arithmetic dtypes, block by block. Raises `BaseNeededError`.
        """
        dtype = self.line.dtype
        if self.predicted is not None:
            return exponents(self.predicted, dtype)
        parts = [exponents(np.empty(0, dtype.word), dtype)]
        for reference, first, last in self._references():
            parts += [exponents(reference.slice(*block), dtype) for block in blocks(last, first)]
        return np.concatenate(parts)

    def _references(self) -> Iterator[tuple[Reference, int, int]]:
        """The references of the records with words in it, and which of their words these are."""
        line = self.line
        if line.references is None:
            raise BaseNeededError(f"{line.where}: {line.group.names[0]!r} and others are coded against the base")
        for record, first, last in self.parts():
            yield line.references(line.group.names[record]), first, last

    def check_numbers(self, numbers: Numbers) -> None:
        """Check a stream of numbers by the group's value coding. Raises `CorruptFileError`."""
        self.line.value_coding.check(numbers, self.line.dtype, self.where)


class PositionCoding(ABC):
    """One way to store which words change; the objects stand in the registry of this package.

    `id` is its name in the file. `since` is the minor version that brought it, if a file must require it by its id
    (rule `rule`); None if every reader knows it.

    What it is like: with `every_word` a span has a number for each word, zeros too. With `keeps_zeros` the positions
    are not the writer's to choose, so numbers of zero are stored; else they are left out. `offered` ones can be asked
    for by name when exact changes are stored. `holds_offsets` ones can store values with offsets for each class.
    `checked_apart` ones can check a span without decoding it, which may need the base.
    """

    id: str
    since: int | None = None
    rule = ""
    every_word = False
    keeps_zeros = False
    offered = False
    holds_offsets = False
    checked_apart = False
    context_streams: ClassVar[int] = 0
    """How many first streams of a chunk `contexts` looks at."""

    @abstractmethod
    def decode(self, streams: list[Numbers], span: Span) -> Decoded:
        """Check and decode the streams of a span. Raises `CorruptFileError`, `BaseNeededError`."""

    def encode(self, positions: Positions, numbers: Numbers, start: int, stop: int) -> list[Numbers]:
        """The streams of a span [start, stop) of a line, made from what changes in it."""
        raise TypeError(f"{self.id} is only read")

    def needs_base(self, group: Group) -> bool:
        """Say whether decoding a group may need the base."""
        return False

    def check_without_base(self, streams: list[Numbers], span: Span) -> bool:
        """Check a span as far as that goes without the base, if the coding is `checked_apart`.

        Gives whether it is to be decoded as well, which then needs no base. Raises `CorruptFileError`.
        """
        return True

    def stored(self, counts: Sequence[int]) -> int | None:
        """How many changes a span's chunk holds, by how many numbers its streams have; None where these do not tell."""
        return None

    def counted(self, value_coding: ValueCoding) -> bool:
        """Say whether the manifest counts the changes of each record with such values, since not everybody can."""
        return False

    def contexts(self, streams: list[Numbers], where: str) -> Sequence[str]:
        """Say by what the words of a chunk were put into classes (of `CONTEXTS`). Raises `CorruptFileError`."""
        return ()

    def check_group(self, group: Group, where: str) -> None:  # noqa: B027 - most codings ask nothing of a group
        """Check what the manifest says of a group. Raises `CorruptFileError`."""

    def check_counts(self, group: Group, where: str) -> None:
        """Check that there is a count for each record where there must be one. Raises `CorruptFileError`."""
        if self.counted(VALUE_CODINGS[group.value_coding_id]) and (
            group.counts is None or len(group.counts) != len(group.names)
        ):
            raise CorruptFileError(f"{where}: not one count for each record", self.rule)

    def __repr__(self) -> str:
        return f"<position coding {self.id}>"

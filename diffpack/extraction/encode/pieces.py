"""Pieces of records: what is coded at once, small enough that spans can end between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import BLOCK_WORDS, blocks


@dataclass(frozen=True)
class Piece:
    """A part [start, stop) of a record, with `count` values; `line` is where the tensor begins on the group's line.

    `places` are the positions that are stored, in the tensor, where they are known already.
    """

    plan: RecordPlan
    line: int
    start: int
    stop: int
    count: int
    places: Positions | None = None

    @property
    def positions(self) -> Positions:
        """The positions that are stored, in the tensor: of every word, those known, or those that differ."""
        if self.plan.position_coding.every_word:
            return np.arange(self.start, self.stop)
        if self.places is not None:
            return self.places
        scan = self.plan.scan
        reference = scan.reference.slice(self.start, self.stop)
        return np.flatnonzero(scan.tuned[self.start : self.stop] != reference) + self.start

    def sides(self, positions: Positions | None = None) -> tuple[Words, Words]:
        """The words of both sides, reference and tuned, at positions (None: all of the piece)."""
        scan = self.plan.scan
        if positions is None:
            return scan.reference.slice(self.start, self.stop), scan.tuned[self.start : self.stop]
        return scan.reference.at(positions), scan.tuned[positions]

    def numbers(self, positions: Positions | None = None) -> Numbers:
        """The numbers that are stored at positions (None: of all words of the piece)."""
        plan = self.plan
        return plan.value_coding.encode(*self.sides(positions), plan.scan.pair.info.dtype, plan.scale)


def pieces_of(plans: Sequence[RecordPlan], *, by_words: bool = False) -> Iterator[Piece]:
    """Cut the records of a group, in order of their line; `by_words` as if no positions were known."""
    line = 0
    for plan in plans:
        scan = plan.scan
        known = plan.chosen if plan.chosen is not None else scan.positions
        if plan.position_coding.every_word:
            for start, stop in blocks(scan.tuned.size):
                yield Piece(plan, line, start, stop, stop - start)
        elif known is not None and not by_words:
            yield from _known_pieces(plan, line, known)
        else:
            for (start, stop), count in zip(blocks(scan.tuned.size), scan.changed, strict=True):
                yield Piece(plan, line, start, stop, count)
        line += scan.tuned.size


def _known_pieces(plan: RecordPlan, line: int, known: Positions) -> Iterator[Piece]:
    start, size = 0, plan.scan.tuned.size
    for first in range(0, max(known.size, 1), BLOCK_WORDS):
        part = known[first : first + BLOCK_WORDS]
        stop = size if first + BLOCK_WORDS >= known.size else int(part[-1]) + 1
        if stop > start:
            yield Piece(plan, line, start, stop, part.size, part)
        start = stop

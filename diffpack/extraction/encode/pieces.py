"""Pieces of records: what is coded at once, small enough that spans can end between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from diffpack.checkpoints.joined_words import joined
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import BLOCK_WORDS, blocks


@dataclass(frozen=True)
class Piece:
    """A part [start, stop) of a record, with `count` values; `line` is where the tensor begins on the group's line.

    Where the positions that are stored are known already, `first` says which of them comes first.
    """

    plan: RecordPlan
    line: int
    start: int
    stop: int
    count: int
    first: int | None = None

    @property
    def known(self) -> bool:
        """Whether the positions that are stored are known."""
        return self.first is not None

    @property
    def steps_known(self) -> bool:
        """Whether the exact steps there are, too, and what is stored."""
        plan = self.plan
        return self.known and plan.chosen is None and plan.value_coding.exact

    @property
    def positions(self) -> Positions:
        """The positions that are stored, on the line; they must be known."""
        assert self.first is not None
        return _known(self.plan, self.first, self.first + self.count) + self.line

    @property
    def steps(self) -> Numbers:
        """The exact steps there; they must be known."""
        kept = self.plan.scan.kept
        assert self.first is not None
        assert kept is not None
        return kept.steps[self.first : self.first + self.count]


def _known(plan: RecordPlan, first: int, stop: int) -> Positions:
    """Some of the positions that a record stores, which are chosen or kept from the scan."""
    if plan.chosen is not None:
        return plan.chosen[first:stop]
    assert plan.scan.kept is not None
    return plan.scan.kept.positions(first, stop)


def sides_of(pieces: Sequence[Piece]) -> Iterator[tuple[Positions | None, Words, Words]]:
    """What neighbouring pieces of a line store: positions on the line (None: every word), and both sides there.

    The sides are reference and tuned. Many small pieces are read together, large ones block by block.
    """
    for known, own in groupby(pieces, lambda piece: piece.known):
        run = list(own)
        records = [next(same) for _, same in groupby(run, lambda piece: piece.line)]
        scans = [piece.plan.scan for piece in records]
        origin = records[0].line
        reference, tuned = joined([scan.reference.source for scan in scans]), joined([scan.tuned for scan in scans])
        if known:
            positions = np.concatenate([piece.positions for piece in run])
            yield positions, reference[positions - origin], tuned[positions - origin]
            continue
        every_word = run[0].plan.position_coding.every_word
        for start, stop in blocks(run[-1].line + run[-1].stop - origin, run[0].line + run[0].start - origin):
            before, after = reference[start:stop], tuned[start:stop]
            if every_word:
                yield None, before, after
            else:
                moved = np.flatnonzero(after != before)
                yield moved + (start + origin), before[moved], after[moved]


def numbers_of(pieces: Sequence[Piece]) -> Iterator[tuple[Positions | None, Numbers]]:
    """What neighbouring pieces of a line store, of one scale: positions on it (None: every word), and numbers there."""
    plan = pieces[0].plan
    for known, own in groupby(pieces, lambda piece: piece.steps_known):
        run = list(own)
        if known:
            yield np.concatenate([piece.positions for piece in run]), np.concatenate([piece.steps for piece in run])
            continue
        for positions_there, before, after in sides_of(run):
            yield positions_there, plan.value_coding.encode(before, after, plan.scan.pair.info.dtype, plan.scale)


def pieces_of(plans: Sequence[RecordPlan], *, by_words: bool = False) -> Iterator[Piece]:
    """Cut the records of a group, in order of their line; `by_words` as if no positions were known."""
    line = 0
    for plan in plans:
        scan = plan.scan
        known = scan.kept if plan.chosen is None else plan.chosen
        if plan.position_coding.every_word:
            for start, stop in blocks(scan.tuned.size):
                yield Piece(plan, line, start, stop, stop - start)
        elif known is not None and not by_words:
            yield from _known_pieces(plan, line, known.size)
        else:
            for (start, stop), count in zip(blocks(scan.tuned.size), scan.changed, strict=True):
                yield Piece(plan, line, start, stop, count)
        line += scan.tuned.size


def _known_pieces(plan: RecordPlan, line: int, count: int) -> Iterator[Piece]:
    start, size = 0, plan.scan.tuned.size
    for first in range(0, max(count, 1), BLOCK_WORDS):
        last = min(first + BLOCK_WORDS, count)
        stop = size if last == count else int(_known(plan, last - 1, last)[0]) + 1
        if stop > start:
            yield Piece(plan, line, start, stop, last - first, first)
        start = stop

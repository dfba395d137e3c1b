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

    `places` are the positions that are stored, in the tensor, where they are known already, `steps` the exact steps
    there, where these are what is stored.
    """

    plan: RecordPlan
    line: int
    start: int
    stop: int
    count: int
    places: Positions | None = None
    steps: Numbers | None = None


def sides_of(pieces: Sequence[Piece]) -> Iterator[tuple[Positions | None, Words, Words]]:
    """What neighbouring pieces of a line store: positions on the line (None: every word), and both sides there.

    The sides are reference and tuned. Many small pieces are read together, large ones block by block.
    """
    for known, own in groupby(pieces, lambda piece: piece.places is not None):
        run = list(own)
        records = [next(same) for _, same in groupby(run, lambda piece: piece.line)]
        scans = [piece.plan.scan for piece in records]
        origin = records[0].line
        reference, tuned = joined([scan.reference.source for scan in scans]), joined([scan.tuned for scan in scans])
        if known:
            positions = np.concatenate([piece.places + piece.line for piece in run if piece.places is not None])
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
    for known, own in groupby(pieces, lambda piece: piece.steps is not None):
        run = list(own)
        if known:
            positions = [piece.places + piece.line for piece in run if piece.places is not None]
            yield np.concatenate(positions), np.concatenate([piece.steps for piece in run if piece.steps is not None])
            continue
        for positions_there, before, after in sides_of(run):
            yield positions_there, plan.value_coding.encode(before, after, plan.scan.pair.info.dtype, plan.scale)


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
    steps = plan.scan.steps if plan.value_coding.exact and plan.chosen is None else None
    for first in range(0, max(known.size, 1), BLOCK_WORDS):
        part = known[first : first + BLOCK_WORDS]
        stop = size if first + BLOCK_WORDS >= known.size else int(part[-1]) + 1
        if stop > start:
            own = None if steps is None else steps[first : first + BLOCK_WORDS]
            yield Piece(plan, line, start, stop, part.size, part, own)
        start = stop

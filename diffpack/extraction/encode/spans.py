"""From the records of a group to chunks: the line cut into spans, each coded by a job of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import numpy as np

from diffpack.extraction.encode import level_streams
from diffpack.extraction.encode.pieces import Piece, numbers_of, pieces_of
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.format.chunks import CHUNK_VALUES, EncodedChunk, encode_chunk
from diffpack.format.positions.levels import LEVELS
from diffpack.format.streams import Numbers


class Encoder(Protocol):
    """How spans of a position coding are cut and coded; with `by_words` it wants all words of a span."""

    by_words: bool

    def full(self, words: int, value_coding: int) -> bool:
        """Whether a span of so many words with so many values is more than one chunk should hold."""
        ...

    def streams(self, pieces: Sequence[Piece], start: int) -> list[Numbers]:
        """The streams of the span that begins at `start` of the line."""
        ...


class PlainEncoder:
    """Numbers of what changes, and positions as the coding stores them: for every coding without choices of its own."""

    by_words = False

    def full(self, words: int, value_coding: int) -> bool:
        """Large tensors rarely share a chunk."""
        return value_coding > CHUNK_VALUES

    def streams(self, pieces: Sequence[Piece], start: int) -> list[Numbers]:
        """What the coding makes of positions and numbers; a lossy value of zero changes nothing."""
        plan, last = pieces[0].plan, pieces[-1]
        coding, value_coding = plan.position_coding, plan.value_coding
        places, parts = [np.empty(0, np.int64)], []
        for _, own in groupby(pieces, lambda piece: piece.plan.scale):
            for positions, numbers in numbers_of(list(own)):
                if positions is not None:
                    if not value_coding.exact and not coding.keeps_zeros:
                        kept = value_coding.effective(numbers)
                        positions, numbers = positions[kept], numbers[kept]
                    places.append(positions)
                parts.append(numbers)
        return coding.encode(np.concatenate(places), np.concatenate(parts), start, last.line + last.stop)


_PLAIN = PlainEncoder()
_ENCODERS: dict[str, Encoder] = {LEVELS.id: level_streams.LevelEncoder()}
"""Codings whose encoding is a choice of the writer's; all others are coded plainly."""


@dataclass(frozen=True)
class Span:
    """Pieces of records that one chunk holds, from `start` of the group's line on, and what codes them."""

    encoder: Encoder
    pieces: Sequence[Piece]
    start: int

    @property
    def end(self) -> int:
        """Where it ends on the line."""
        return self.pieces[-1].line + self.pieces[-1].stop

    def coded(self, profile: str) -> EncodedChunk:
        """Its chunk."""
        return encode_chunk(self.encoder.streams(self.pieces, self.start), profile)


def spans_of(plans: Sequence[RecordPlan]) -> Iterator[Span]:
    """Cut a group's line into spans."""
    encoder = _ENCODERS.get(plans[0].position_coding.id, _PLAIN)
    pending: list[Piece] = []
    count = start = 0
    for piece in pieces_of(plans, by_words=encoder.by_words):
        if pending and encoder.full(piece.line + piece.stop - start, count + piece.count):
            span = Span(encoder, pending, start)
            yield span
            start, pending, count = span.end, [], 0
        pending.append(piece)
        count += piece.count
    if pending:
        yield Span(encoder, pending, start)


def span_jobs(plans: Sequence[RecordPlan], profile: str) -> Iterator[tuple[int, Callable[[], EncodedChunk]]]:
    """Cut a group's line into spans: the end of each, and the job that codes its chunk."""
    return ((span.end, partial(span.coded, profile)) for span in spans_of(plans))

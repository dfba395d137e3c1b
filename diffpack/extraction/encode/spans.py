"""From scanned tensors to chunks: records grouped by coding, cut into spans, coded in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode.level_streams import Part, exact_streams, grid_streams
from diffpack.extraction.encode.record import Record
from diffpack.extraction.scan.scan import Scan
from diffpack.format.chunks import CHUNK_VALUES, EncodedChunk, encode_chunk
from diffpack.format.positions import gaps
from diffpack.format.positions.gaps import Positions
from diffpack.format.streams import Numbers
from diffpack.format.values import exact, floats, grid, int8
from diffpack.tensors.blocks import BLOCK_WORDS, blocks
from diffpack.tensors.dtypes import Words

LEVELS_WORDS = 1 << 20
"""Words a chunk of levels covers at most, where many change (MiniLM pair: 31.5 % at 2^19 to 2^22); decoding it takes
about 24 bytes a word of memory."""
SPARSE_LEVELS_WORDS = 1 << 22
"""The same where few change: classes want many changes (RL-like update: 6.0 bits a change at 2^21, 5.9 at 2^22)."""


@dataclass(frozen=True)
class _Piece:
    """A part [start, stop) of a record; `line` is where the tensor begins on the group's line."""

    record: Record
    line: int
    start: int
    stop: int
    count: int
    positions: Positions | None


def span_jobs(records: Sequence[Record], profile: str) -> Iterator[tuple[int, Callable[[], EncodedChunk]]]:
    """Cut a group's line into spans: the end of each, and the job that codes its chunk.

    A chunk ends before it would hold too many values, so large tensors rarely share one; one of levels ends before
    it would cover too many words.
    """
    leveled = records[0].positions == "levels"
    pending: list[_Piece] = []
    count = start = 0
    for piece in _pieces(records):
        words = piece.line + piece.stop - start
        values = count + piece.count
        full = words > (LEVELS_WORDS if values > CHUNK_VALUES else SPARSE_LEVELS_WORDS)
        if pending and (full if leveled else values > CHUNK_VALUES):
            yield _job(pending, start, profile)
            start = pending[-1].line + pending[-1].stop
            pending, count = [], 0
        pending.append(piece)
        count += piece.count
    if pending:
        yield _job(pending, start, profile)


def _job(pieces: list[_Piece], start: int, profile: str) -> tuple[int, Callable[[], EncodedChunk]]:
    return pieces[-1].line + pieces[-1].stop, lambda: encode_chunk(_arrays(pieces, start), profile)


def _pieces(records: Sequence[Record]) -> Iterator[_Piece]:
    line = 0
    for record in records:
        scan = record.scan
        known = record.chosen if record.chosen is not None else scan.positions
        if record.positions == "all":
            for start, stop in blocks(scan.tuned.size):
                yield _Piece(record, line, start, stop, stop - start, None)
        elif known is not None and record.positions in ("gaps", "rule"):
            yield from _known_pieces(record, line, known)
        else:
            for (start, stop), count in zip(blocks(scan.tuned.size), scan.changed, strict=True):
                yield _Piece(record, line, start, stop, count, None)
        line += scan.tuned.size


def _known_pieces(record: Record, line: int, known: Positions) -> Iterator[_Piece]:
    start, size = 0, record.scan.tuned.size
    for first in range(0, max(known.size, 1), BLOCK_WORDS):
        part = known[first : first + BLOCK_WORDS]
        stop = size if first + BLOCK_WORDS >= known.size else int(part[-1]) + 1
        if stop > start:
            yield _Piece(record, line, start, stop, part.size, part)
        start = stop


def _arrays(pieces: list[_Piece], start: int) -> list[Numbers]:
    """Give the streams of one chunk: gaps (unless all words change, or a rule tells which) and numbers."""
    if pieces[0].record.positions == "levels":
        record, parts = pieces[0].record, [_part(group) for group in _by_record(pieces)]
        dtype = record.scan.pair.info.dtype
        return (
            grid_streams(parts, dtype) if record.values == "grid" else exact_streams(parts, dtype, record.conditioned)
        )
    if pieces[0].record.positions == "all":
        return [np.concatenate([_numbers(piece, None) for piece in pieces])]
    if pieces[0].record.positions == "rule":
        return [np.concatenate([_numbers(piece, _positions(piece)) for piece in pieces])]
    places, numbers = [], []
    for piece in pieces:
        positions = _positions(piece)
        found = _numbers(piece, positions)
        if piece.record.values != "exact":  # a value that rounds to zero changes nothing
            kept = _effective(found, piece.record.values)
            positions, found = positions[kept], found[kept]
        places.append(positions + piece.line)
        numbers.append(found)
    return [gaps.encode(np.concatenate(places), start), np.concatenate(numbers)]


def _by_record(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    for _, group in groupby(pieces, lambda piece: piece.line):
        yield list(group)


def _part(pieces: list[_Piece]) -> Part:
    """Give neighbouring pieces of one record as a part of a span of levels."""
    record, start, stop = pieces[0].record, pieces[0].start, pieces[-1].stop
    reference, tuned = _sides(record.scan, start, stop, None)
    return Part(record.scan.pair.info.shape, start, reference, tuned, float(record.scale) * grid.UNITS)


def _positions(piece: _Piece) -> Positions:
    if piece.positions is not None:
        return piece.positions
    scan = piece.record.scan
    reference = scan.reference.slice(piece.start, piece.stop)
    return np.flatnonzero(scan.tuned[piece.start : piece.stop] != reference) + piece.start


def _numbers(piece: _Piece, positions: Positions | None) -> Numbers:
    record = piece.record
    reference, tuned = _sides(record.scan, piece.start, piece.stop, positions)
    dtype = record.scan.pair.info.dtype
    if record.values == "exact":
        return exact.encode(reference, tuned, dtype)
    differences = floats.difference(reference, tuned, dtype)
    if record.values == "int8":
        return int8.encode(differences, record.scale, record.quantiser)
    return floats.encode(differences, record.values)


def _sides(scan: Scan, start: int, stop: int, positions: Positions | None) -> tuple[Words, Words]:
    if positions is None:
        return scan.reference.slice(start, stop), scan.tuned[start:stop]
    return scan.reference.at(positions), scan.tuned[positions]


def _effective(numbers: Numbers, coding: str) -> npt.NDArray[np.bool_]:
    """Mark numbers that stand for a value other than zero (the ordered integer of -0.0 is -1)."""
    mask: npt.NDArray[np.bool_] = numbers != 0
    if coding != "int8":
        mask &= numbers != -1
    return mask

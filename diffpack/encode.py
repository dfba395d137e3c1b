"""From scanned tensors to chunks: records grouped by coding, cut into spans, coded in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.blocks import BLOCK_WORDS, blocks
from diffpack.codecs.positions import classes, gaps
from diffpack.codecs.positions.gaps import Positions
from diffpack.codecs.streams import Numbers
from diffpack.codecs.values import exact, floats, int8
from diffpack.container.table import EncodedChunk, encode_chunk
from diffpack.dtypes import Words
from diffpack.scan import Scan

CHUNK_VALUES = 1 << 18
"""Values a chunk: pco fits its bins to them (MiniLM pair: 32.9 % at 2^18, 33.1 % at 2^20)."""
CLASSES_WORDS = 1 << 22
"""Words a chunk of classes covers at most. Its classes want many words (the chunks of an RL-like bfloat16 update cost
6.0 bits a change at 2^21, 5.9 at 2^22, 5.8 at 2^23), and decoding it takes about 24 bytes a word of memory."""
DENSE = 0.5
"""From this density on every word gets a step: positions cost as much as zeros would, and decode slower."""
_SAMPLE = 1 << 16  # differences a tensor's int8 scale is fitted to


_NO_SCALE = np.float32(0)


@dataclass(frozen=True)
class Record:
    """A tensor to store: its scan, the value coding, and the chosen positions (None: all that differ)."""

    scan: Scan
    values: str
    chosen: Positions | None = None
    scale: np.float32 = _NO_SCALE
    conditioned: bool = False

    @property
    def positions(self) -> str:
        """The position coding: `classes` if asked for and possible, `all` where most words change, else `gaps`."""
        pair = self.scan.pair
        if self.conditioned and self.values == "exact" and pair.base is not None and pair.info.dtype.arithmetic:
            return "classes"
        return "all" if self.chosen is None and self.scan.density >= DENSE else "gaps"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What records of one group share: base dtype ("" for none), dtype, positions, values."""
        pair = self.scan.pair
        return (pair.base.dtype.name if pair.base else "", pair.info.dtype.name, self.positions, self.values)


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

    A chunk ends before it would hold too many values, so large tensors rarely share one; one of classes, which
    holds twice as many, also before it would cover too many words.
    """
    conditioned = records[0].positions == "classes"
    most_values = 2 * CHUNK_VALUES if conditioned else CHUNK_VALUES
    pending: list[_Piece] = []
    count = start = 0
    for piece in _pieces(records):
        long = conditioned and piece.line + piece.stop - start > CLASSES_WORDS
        if pending and (long or count + piece.count > most_values):
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
        elif known is not None and record.positions == "gaps":
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
    """Give the streams of one chunk: gaps (unless all words change) and numbers."""
    if pieces[0].record.positions == "classes":
        sides = [_sides(piece.record.scan, piece.start, piece.stop, None) for piece in pieces]
        reference, tuned = (np.concatenate(side) for side in zip(*sides, strict=True))
        return classes.encode(reference, tuned, pieces[0].record.scan.pair.info.dtype)
    if pieces[0].record.positions == "all":
        return [np.concatenate([_numbers(piece, None) for piece in pieces])]
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
    return code_differences(floats.difference(reference, tuned, dtype), record.values, record.scale)


def _sides(scan: Scan, start: int, stop: int, positions: Positions | None) -> tuple[Words, Words]:
    if positions is None:
        return scan.reference.slice(start, stop), scan.tuned[start:stop]
    return scan.reference.at(positions), scan.tuned[positions]


def code_differences(differences: npt.NDArray[Any], coding: str, scale: np.float32) -> Numbers:
    """Code float differences in a lossy value coding."""
    if coding == "int8":
        return int8.encode(differences, scale)
    return floats.encode(differences, coding)


def _effective(numbers: Numbers, coding: str) -> npt.NDArray[np.bool_]:
    """Mark numbers that stand for a value other than zero (the ordered integer of -0.0 is -1)."""
    mask: npt.NDArray[np.bool_] = numbers != 0
    if coding != "int8":
        mask &= numbers != -1
    return mask


def fit_scales(records: Sequence[Record]) -> list[Record]:
    """Give int8 records their scales: powers of two apart, anchored at the best scale of all differences."""
    samples = [_sample(record) for record in records]
    together = np.concatenate(samples) if samples else np.empty(0, np.float32)
    anchor = int8.best_scale(together[:: max(1, together.size // (4 * _SAMPLE))])
    return [replace(record, scale=int8.snap(anchor, sample)) for record, sample in zip(records, samples, strict=True)]


def _sample(record: Record) -> npt.NDArray[Any]:
    """Give the differences of up to `_SAMPLE` entries, evenly spread over those stored."""
    scan = record.scan
    positions = record.chosen if record.chosen is not None else scan.positions
    if positions is None:
        positions = np.arange(scan.tuned.size, dtype=np.int64)
    positions = positions[:: max(1, positions.size // _SAMPLE)]
    return floats.difference(scan.reference.at(positions), scan.tuned[positions], scan.pair.info.dtype)

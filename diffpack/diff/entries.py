"""Write a diff whose changes are known already: what compose, convert, invert, merge and rebase have in common.

`extract` compares two checkpoints and codes what it finds; here the changes come from other diffs or another tool's
files, one record after the other in order of name. Each record is coded as soon as it is there, so memory holds a few
records and the coded chunks, never a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from diffpack.diff.factor_spans import factor_jobs, factor_table, scale_streams
from diffpack.diff.group_decoder import Changes
from diffpack.errors import UsageError
from diffpack.format.chunks import CHUNK_VALUES, EncodedChunk, encode_chunk
from diffpack.format.factors.product import Factors
from diffpack.format.features import PROFILES
from diffpack.format.manifest import Group, digest_column
from diffpack.format.positions import PositionCoding, levels
from diffpack.format.positions.every_word import DENSE_ENOUGH, EVERY_WORD
from diffpack.format.positions.gaps import GAPS
from diffpack.format.positions.levels import LEVELS, Plan
from diffpack.format.positions.split import Split
from diffpack.format.streams import Numbers
from diffpack.format.values import NO_SCALE, ValueCoding
from diffpack.format.values.exact import EXACT
from diffpack.format.values.grid import GRID, OFFSETS
from diffpack.format.writer import ContainerWriter
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.digests import PairHasher
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.reference import Reference, comparable

_SPARSE = 1 / 4  # below this density a block's steps are kept as positions and numbers, which take less memory
_STILL_SPAN = 1 << 22
"""Words of a span beside factors, in which the grid changes nothing: few chunks, which take little memory to decode."""
_NO_OFFSETS = (0,) * OFFSETS
PLAIN_PROFILES = tuple(profile for profile in PROFILES if profile != "smallest")
"""Profiles a diff can be written in without its base."""


@dataclass(frozen=True)
class Entry:
    """A record to write: `parts` cover the result tensor, span by span; a number of 0 changes nothing.

    With `adds_zeros` it does, as in the lossy record the parts came from: it makes -0.0 a 0.0. With `factors` the parts
    are numbers of a grid without offsets, of every word, which is added to what these come to.
    `base` is None for a tensor the base lacks, digests are BLAKE3 of the base
    and the result tensor's bytes (16 bytes or more; None where they are not recorded).
    """

    name: str
    info: TensorInfo
    base: TensorInfo | None
    base_digest: bytes | None
    digest: bytes | None
    parts: tuple[Changes, ...]
    value_coding: ValueCoding = EXACT
    scale: np.float32 = NO_SCALE
    adds_zeros: bool = False
    factors: Factors | None = None

    @property
    def key(self) -> _Key:
        """What records of one group share."""
        base, factors = self.base.dtype.name if self.base else "", self.factors.values if self.factors else ""
        return base, self.info.dtype.name, self.position_coding.id, self.value_coding.id, factors

    @property
    def count(self) -> int:
        """How many words change, or may."""
        if self.factors is not None:
            return self.info.words
        if self.adds_zeros:
            return sum(part.numbers.size for part in self.parts)
        return sum(int(np.count_nonzero(part.numbers)) for part in self.parts)

    @property
    def unchanged(self) -> bool:
        """Whether the result tensor is the base tensor."""
        return self.base == self.info and self.count == 0

    @property
    def position_coding(self) -> PositionCoding:
        """Every word where the record is dense, else gaps; levels beside factors."""
        if self.factors is not None:
            return LEVELS
        if self.adds_zeros:
            dense = all(part.positions is None for part in self.parts)
        else:
            dense = self.count >= DENSE_ENOUGH * self.info.words
        return EVERY_WORD if dense else GAPS


def check_profile(profile: str) -> None:
    """Raise `UsageError` for a profile that is unknown or needs the base to be coded."""
    if profile not in PLAIN_PROFILES:
        raise UsageError(f"the profile is one of {', '.join(PLAIN_PROFILES)}, not {profile!r}")


def write_entries(
    writer: ContainerWriter,
    entries: Iterable[Entry],
    profile: str,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    total: int = 0,
) -> list[Group]:
    """Code records, which come sorted by name, and write their groups; give the groups as the manifest holds them.

    Factors are kept until all records are there. `progress` is told the bytes of the result tensors done, of `total`.
    """
    open_groups: dict[_Key, _OpenGroup] = {}
    for group, chunk in run_in_order(_jobs(entries, open_groups, profile, progress, total), threads):
        group.chunks.append(chunk)
    groups = []
    for key in sorted(open_groups):
        group = open_groups[key]
        if group.value_coding.scaled:
            writer.add(encode_chunk(scale_streams(group.scales, group.factors), profile))
        spans = list(factor_jobs(group.factors, profile))
        for chunk in run_in_order((job for _, job in spans), threads):
            writer.add(chunk)
        for chunk in group.chunks:
            writer.add(chunk)
        groups.append(group.finished([end for end, _ in spans]))
    return groups


_Job = Callable[[], tuple["_OpenGroup", EncodedChunk]]
_Key = tuple[str, str, str, str, str]
"""What records of one group share: base dtype ("" for none), dtype, ids of both codings, what factors are."""


def _jobs(
    entries: Iterable[Entry],
    open_groups: dict[_Key, _OpenGroup],
    profile: str,
    progress: Progress | None,
    total: int,
) -> Iterator[_Job]:
    done = 0
    for entry in entries:
        coding, base = entry.position_coding, entry.base.dtype.name if entry.base else None
        new = _OpenGroup(base, entry.info.dtype.name, coding, entry.value_coding)
        group = open_groups.setdefault(entry.key, new)
        yield from (partial(_code, group, *span, profile) for span in group.add(entry))
        done += entry.info.nbytes
        if progress is not None:
            progress("coding", done, total)
    for group in open_groups.values():
        yield from (partial(_code, group, *span, profile) for span in group.flush())


def _code(
    group: _OpenGroup, pieces: list[tuple[int, Changes]], start: int, profile: str
) -> tuple[_OpenGroup, EncodedChunk]:
    """Code one span that begins at `start` of the group: pieces are (where their tensor begins, changes)."""
    numbers = np.concatenate([part.numbers for _, part in pieces])
    if group.factors:
        return group, encode_chunk(levels.encode(Plan(), Split.whole(numbers.size), numbers, [_NO_OFFSETS]), profile)
    places = [part.positions + first for first, part in pieces if part.positions is not None]
    first, last = pieces[-1]
    positions = np.concatenate([np.empty(0, np.int64), *places])
    return group, encode_chunk(group.position_coding.encode(positions, numbers, start, first + last.stop), profile)


@dataclass
class _OpenGroup:
    """A group being made: what stands in the manifest, the chunks so far, and the pieces of the open span."""

    base_dtype: str | None
    dtype: str
    position_coding: PositionCoding
    value_coding: ValueCoding
    entries: list[Entry] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    scales: list[np.float32] = field(default_factory=list)
    factors: list[Factors] = field(default_factory=list)
    chunks: list[EncodedChunk] = field(default_factory=list)
    _open: list[tuple[int, Changes]] = field(default_factory=list)
    _length: int = 0
    _values: int = 0

    def add(self, entry: Entry) -> Iterator[tuple[list[tuple[int, Changes]], int]]:
        """Append a record; give the spans that are full: their pieces, and where they begin."""
        if entry.factors is not None:
            self.factors.append(entry.factors)
        most = CHUNK_VALUES if entry.factors is None else _STILL_SPAN
        cut = _sparse_pieces if self.position_coding is GAPS else _dense_pieces
        for part in entry.parts:
            for piece in cut(part, entry, most):
                if self._open and self._values + piece.numbers.size > most:
                    yield from self.flush()
                self._open.append((self._length, piece))
                self._values += piece.numbers.size
        self._length += entry.info.words
        self.scales.append(entry.scale)
        self.entries.append(Entry(entry.name, entry.info, entry.base, entry.base_digest, entry.digest, ()))

    def flush(self) -> Iterator[tuple[list[tuple[int, Changes]], int]]:
        """Close the open span, if there is one: its pieces, and where it begins."""
        if not self._open:
            return
        first, last = self._open[-1]
        start = self.ends[-1] if self.ends else 0
        self.ends.append(first + last.stop)
        pieces, self._open, self._values = self._open, [], 0
        yield pieces, start

    def finished(self, factor_ends: list[int]) -> Group:
        """The group as the manifest holds it; `factor_ends` are the ends of the spans of its factor line."""
        records = self.entries
        return Group(
            dtype=self.dtype,
            base_dtype=self.base_dtype,
            position_coding_id=self.position_coding.id,
            value_coding_id=self.value_coding.id,
            names=tuple(item.name for item in records),
            shapes=tuple(item.info.shape for item in records),
            ends=tuple(self.ends),
            resized={
                item.name: item.base.shape for item in records if item.base and item.base.shape != item.info.shape
            },
            base_digests=digest_column(item.base_digest for item in records) if self.base_dtype else None,
            result_digests=digest_column(item.digest for item in records),
            factors=factor_table(self.factors, factor_ends),
        )


def _sparse_pieces(part: Changes, entry: Entry, most: int) -> Iterator[Changes]:
    """Cut changes into pieces of at most `most` values, without numbers that change nothing."""
    if part.positions is None or not entry.adds_zeros:
        part = part.nonzero()
    assert part.positions is not None
    positions, numbers = part.positions, part.numbers
    start, size = part.start, numbers.size
    for first in range(0, max(size, 1), most):
        last = first + most
        stop = part.stop if last >= size else int(positions[last - 1]) + 1
        yield Changes(start, stop, positions[first:last], numbers[first:last])
        start = stop


def _dense_pieces(part: Changes, entry: Entry, most: int) -> Iterator[Changes]:
    """Cut changes into pieces of at most `most` words, a number for each word."""
    for start in range(part.start, part.stop, most):
        stop = min(start + most, part.stop)
        index, numbers = part.within(start, stop)
        if part.positions is not None:
            whole: Numbers = np.zeros(stop - start, entry.value_coding.stream(entry.info.dtype))
            whole[index] = numbers
            numbers = whole
        yield Changes(start, stop, None, numbers)


def factor_entry(name: str, info: TensorInfo, base_digest: bytes, factors: Factors) -> Entry:
    """The record of a tensor that changes by what factors come to; no grid adds to it."""
    nothing = np.broadcast_to(np.int16(0), info.words)
    parts = (Changes(0, info.words, None, nothing),)
    return Entry(name, info, info, base_digest, None, parts, GRID, factors=factors)


def exact_entry(name: str, info: TensorInfo, words: Words, base: tuple[TensorInfo, Words] | None) -> Entry:
    """The exact record that leads from a base tensor, where it can serve as the reference, to given words."""
    usable = base is not None and comparable(base[0], info)
    base_info, base_words = base if base is not None and usable else (None, None)
    reference = Reference(info, base_info, base_words)
    hasher = PairHasher(base_words)
    parts = []
    for start, stop in blocks(info.words):
        block = words[start:stop]
        hasher.update(start, block)
        steps = EXACT.encode(reference.slice(start, stop), block, info.dtype)
        changes = Changes(start, stop, None, steps)
        parts.append(changes.nonzero() if np.count_nonzero(steps) < _SPARSE * steps.size else changes)
    digest, base_digest = hasher.digests(info.words)
    return Entry(name, info, base_info, base_digest, digest, tuple(parts))

"""Write a diff whose changes are known already: what compose, invert, merge and rebase have in common.

`extract` compares two checkpoints and codes what it finds; here the changes come from other diffs, one record after
the other in order of name. Each record is coded as soon as it is there, so memory holds a few records and the coded
chunks, never a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from blake3 import blake3

from diffpack.diff.changes import Changes
from diffpack.errors import UsageError
from diffpack.extraction.choose.coding import DENSE
from diffpack.format.chunks import CHUNK_VALUES, EncodedChunk, encode_chunk
from diffpack.format.features import PROFILES
from diffpack.format.manifest import Group, digest_column
from diffpack.format.positions import gaps
from diffpack.format.streams import Numbers
from diffpack.format.values import exact, stream_dtype
from diffpack.format.writer import ContainerWriter
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.blocks import blocks
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference, comparable

_NO_SCALE = np.float32(0)
PLAIN_PROFILES = tuple(profile for profile in PROFILES if profile != "smallest")
"""Profiles a diff can be written in without its base."""


@dataclass(frozen=True)
class Entry:
    """A record to write: `parts` cover the result tensor, span by span; a number of 0 changes nothing.

    With `adds_zeros` it does, as in the lossy record the parts came from: it makes -0.0 a 0.0.
    `base` is None for a tensor the base lacks, `values` is the coding of the numbers, digests are BLAKE3 of the base
    and the result tensor's bytes (16 bytes or more; None where they are not recorded).
    """

    name: str
    info: TensorInfo
    base: TensorInfo | None
    base_digest: bytes | None
    digest: bytes | None
    parts: tuple[Changes, ...]
    values: str = "exact"
    scale: np.float32 = _NO_SCALE
    adds_zeros: bool = False

    @property
    def count(self) -> int:
        """How many words change, or may."""
        if self.adds_zeros:
            return sum(part.numbers.size for part in self.parts)
        return sum(int(np.count_nonzero(part.numbers)) for part in self.parts)

    @property
    def unchanged(self) -> bool:
        """Whether the result tensor is the base tensor."""
        return self.base == self.info and self.count == 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What records of one group share: base dtype ("" for none), dtype, positions, values."""
        if self.adds_zeros:
            dense = all(part.positions is None for part in self.parts)
        else:
            dense = self.count >= DENSE * self.info.words
        base = self.base.dtype.name if self.base else ""
        return base, self.info.dtype.name, "all" if dense else "gaps", self.values


def check_profile(profile: str) -> None:
    """Raise `UsageError` for a profile that is unknown or needs the base to be coded."""
    if profile not in PLAIN_PROFILES:
        raise UsageError(f"the profile is one of {', '.join(PLAIN_PROFILES)}, not {profile!r}")


def write_records(
    writer: ContainerWriter,
    entries: Iterable[Entry],
    profile: str,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    total: int = 0,
) -> list[Group]:
    """Code records, which come sorted by name, and write their groups; give the groups as the manifest holds them.

    `progress` is told the bytes of the result tensors done, of `total`.
    """
    lines: dict[tuple[str, str, str, str], _Line] = {}
    for line, chunk in run_in_order(_jobs(entries, lines, profile, progress, total), threads):
        line.chunks.append(chunk)
    groups = []
    for key in sorted(lines):
        line = lines[key]
        if key[3] == "int8":
            writer.add(encode_chunk([np.array(line.scales, "<f4").view("<u4")], profile))
        for chunk in line.chunks:
            writer.add(chunk)
        groups.append(line.group())
    return groups


_Job = Callable[[], tuple["_Line", EncodedChunk]]


def _jobs(
    entries: Iterable[Entry],
    lines: dict[tuple[str, str, str, str], _Line],
    profile: str,
    progress: Progress | None,
    total: int,
) -> Iterator[_Job]:
    done = 0
    for entry in entries:
        key = entry.key
        line = lines.setdefault(key, _Line(key))
        yield from (partial(_code, line, *span, profile) for span in line.add(entry))
        done += entry.info.nbytes
        if progress is not None:
            progress("coding", done, total)
    for line in lines.values():
        yield from (partial(_code, line, *span, profile) for span in line.flush())


def _code(line: _Line, pieces: list[tuple[int, Changes]], start: int, profile: str) -> tuple[_Line, EncodedChunk]:
    """Code one span that begins at `start` of the line: pieces are (where their tensor begins, changes)."""
    numbers = np.concatenate([part.numbers for _, part in pieces])
    if line.key[2] == "all":
        return line, encode_chunk([numbers], profile)
    places = [part.positions + first for first, part in pieces if part.positions is not None]
    return line, encode_chunk([gaps.encode(np.concatenate(places), start), numbers], profile)


@dataclass
class _Line:
    """A group being made: what stands in the manifest, the chunks so far, and the pieces of the open span."""

    key: tuple[str, str, str, str]
    entries: list[Entry] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    scales: list[np.float32] = field(default_factory=list)
    chunks: list[EncodedChunk] = field(default_factory=list)
    _open: list[tuple[int, Changes]] = field(default_factory=list)
    _length: int = 0
    _values: int = 0

    def add(self, entry: Entry) -> Iterator[tuple[list[tuple[int, Changes]], int]]:
        """Append a record; give the spans that are full: their pieces, and where they begin."""
        dense = self.key[2] == "all"
        for part in entry.parts:
            for piece in _dense_pieces(part, entry) if dense else _sparse_pieces(part, entry):
                if self._open and self._values + piece.numbers.size > CHUNK_VALUES:
                    yield from self.flush()
                self._open.append((self._length, piece))
                self._values += piece.numbers.size
        self._length += entry.info.words
        self.scales.append(entry.scale)
        self.entries.append(Entry(entry.name, entry.info, entry.base, entry.base_digest, entry.digest, ()))

    def flush(self) -> Iterator[tuple[list[tuple[int, Changes]], int]]:
        """Give the open span, if there is one."""
        if not self._open:
            return
        first, last = self._open[-1]
        start = self.ends[-1] if self.ends else 0
        self.ends.append(first + last.stop)
        pieces, self._open, self._values = self._open, [], 0
        yield pieces, start

    def group(self) -> Group:
        """Give the group as the manifest holds it."""
        base, dtype, positions, values = self.key
        records = self.entries
        return Group(
            dtype=dtype,
            base=base or None,
            positions=positions,
            values=values,
            names=tuple(item.name for item in records),
            shapes=tuple(item.info.shape for item in records),
            ends=tuple(self.ends),
            resized={
                item.name: item.base.shape for item in records if item.base and item.base.shape != item.info.shape
            },
            base_digests=digest_column(item.base_digest for item in records) if base else None,
            result_digests=digest_column(item.digest for item in records),
        )


def _sparse_pieces(part: Changes, entry: Entry) -> Iterator[Changes]:
    """Cut changes into pieces of at most a chunk's values, without numbers that change nothing."""
    if part.positions is None or not entry.adds_zeros:
        part = part.nonzero()
    assert part.positions is not None
    positions, numbers = part.positions, part.numbers
    start, size = part.start, numbers.size
    for first in range(0, max(size, 1), CHUNK_VALUES):
        last = first + CHUNK_VALUES
        stop = part.stop if last >= size else int(positions[last - 1]) + 1
        yield Changes(start, stop, positions[first:last], numbers[first:last])
        start = stop


def _dense_pieces(part: Changes, entry: Entry) -> Iterator[Changes]:
    """Cut changes into pieces of at most a chunk's words, a number for each word."""
    for start in range(part.start, part.stop, CHUNK_VALUES):
        stop = min(start + CHUNK_VALUES, part.stop)
        index, numbers = part.within(start, stop)
        if part.positions is not None:
            whole: Numbers = np.zeros(stop - start, stream_dtype(entry.values, entry.info.dtype))
            whole[index] = numbers
            numbers = whole
        yield Changes(start, stop, None, numbers)


def copy_blob(writer: ContainerWriter, content: bytes, profile: str) -> None:
    """Store a layout or a side file as a chunk of its own."""
    writer.add(encode_chunk([np.frombuffer(content, np.uint8)], profile))


def recipe(**members: str) -> Mapping[str, str]:
    """Give a recipe whose first words are those of `extract`."""
    return {"select": "all", "values": "exact"} | members


def between(name: str, info: TensorInfo, words: Words, base: tuple[TensorInfo, Words] | None) -> Entry:
    """Give the exact record that leads from a base tensor, where it can serve as the reference, to given words."""
    usable = base is not None and comparable(base[0], info)
    base_info, base_words = base if base is not None and usable else (None, None)
    reference = Reference(info, base_info, base_words)
    digest, base_digest = blake3(), blake3()
    parts = []
    for start, stop in blocks(info.words):
        block = words[start:stop]
        digest.update(block.view("u1").data)
        steps = exact.encode(reference.slice(start, stop), block, info.dtype)
        places = np.flatnonzero(steps)
        sparse = places.size < steps.size / 4
        parts.append(
            Changes(start, stop, places + start, steps[places]) if sparse else Changes(start, stop, None, steps)
        )
    if base_words is not None:
        for start, stop in blocks(base_words.size):
            base_digest.update(base_words[start:stop].view("u1").data)
    return Entry(name, info, base_info, base_digest.digest() if base_info else None, digest.digest(), tuple(parts))

"""Scan pairs of tensors once: hash both sides and find what differs while the bytes are in cache.

Small tensors that lie together are read and compared together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.joined_words import joined
from diffpack.extraction.scan.kept_changes import PAGE_WORDS, Gathered, KeptChanges, lowest
from diffpack.extraction.scan.pairs import Pair
from diffpack.format.values.exact import EXACT
from diffpack.support.found_once import found_once
from diffpack.tensors.digests import PairHasher, part_digests, tensor_digest
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import blocks
from diffpack.tensors.reference import Reference
from diffpack.tensors.word_source import WordSource

KEPT_DENSITY = 1 / 16
"""Below it what was found is kept: two bytes a position and those of a step, a small part of a tensor's bytes."""
_FEW = 4 * KEPT_DENSITY
"""Changes in a block of small tensors of which some may be kept: their steps are taken all at once."""


@dataclass
class Digests:
    """Digests (32 bytes) that are known before tensors are scanned, by the names in the files of both sides."""

    base: dict[str, bytes] = field(default_factory=dict)
    tuned: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """What a scan found. `changed` counts words that differ in each block; `kept` has them, None if many do."""

    pair: Pair
    reference: Reference
    tuned: WordSource
    base_digest: bytes | None
    digest: bytes
    changed: tuple[int, ...]
    kept: KeptChanges | None

    @found_once
    def count(self) -> int:
        """How many words differ."""
        return sum(self.changed)

    def changed_blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of each block in which words differ."""
        for bounds, changed in zip(blocks(self.tuned.size), self.changed, strict=True):
            if changed:
                yield bounds

    def differing(self, start: int, stop: int) -> Positions | None:
        """Which of the words [start, stop) differ, counted from `start`, if that is known."""
        return None if self.kept is None else self.kept.between(start, stop) - start

    @property
    def density(self) -> float:
        """Changed words / words (0 for a tensor without any)."""
        return self.count / self.tuned.size if self.tuned.size else 0.0

    @found_once
    def unchanged(self) -> bool:
        """Whether the tuned tensor is the base tensor it is compared with: same dtype, shape and bits."""
        pair = self.pair
        return pair.base is not None and not pair.resized and not pair.retyped and self.count == 0


def scan(pair: Pair, base: Checkpoint, tuned: Checkpoint) -> Scan:
    """Hash and compare one pair of tensors."""
    return scan_run([pair], base, tuned)[0]


def scan_run(
    run: Sequence[Pair], base: Checkpoint, tuned: Checkpoint, of_base: Mapping[str, bytes] | None = None
) -> list[Scan]:
    """Hash and compare pairs of tensors of one dtype (`runs`), all together, block by block.

    Base tensors whose digests are known, `of_base`, are not hashed again.
    """
    known = of_base or {}
    sides = [_Sides(pair, base, tuned, known.get(pair.base_name or "")) for pair in run]
    return [_scan_blocks(sides[0])] if len(sides) == 1 else _scan_together(sides)


class _Sides:
    """Both sides of a pair, and the base tensor's digest, where it is known."""

    __slots__ = ("base_words", "known", "pair", "reference", "words")

    def __init__(self, pair: Pair, base: Checkpoint, tuned: Checkpoint, known: bytes | None) -> None:
        self.pair = pair
        self.words = tuned.word_source(pair.name)
        self.base_words = pair.base_words(base)
        self.reference = Reference(pair.info, pair.base, self.base_words)
        self.known = known

    def scan(
        self, base_digest: bytes | None, digest: bytes, changed: tuple[int, ...], kept: KeptChanges | None
    ) -> Scan:
        """What was found."""
        return Scan(self.pair, self.reference, self.words, base_digest, digest, changed, kept)

    def base_digest(self) -> bytes | None:
        """The base tensor's digest, read for it if it is not known."""
        return self.known if self.known is not None or self.base_words is None else tensor_digest(self.base_words)


def _scan_blocks(sides: _Sides) -> Scan:
    """Hash and compare one pair, block by block."""
    reference, words, dtype = sides.reference, sides.words, sides.pair.info.dtype
    unconverted = reference.unconverted
    hasher = PairHasher(sides.base_words if sides.known is None else None)
    counts: list[int] = []
    total = 0
    gathered: Gathered | None = Gathered(words.size, dtype)
    for start, stop in blocks(words.size):
        block, before = words[start:stop], reference.source[start:stop]
        hasher.update(start, block, before if unconverted else None)
        moved = np.flatnonzero(block != before)
        counts.append(moved.size)
        total += moved.size
        if total > words.size * KEPT_DENSITY:
            gathered = None
        if gathered is not None:
            gathered.add(moved + start, EXACT.encode(before[moved], block[moved], dtype))
    digest, base_digest = hasher.digests(words.size)
    assert digest is not None
    base_digest = base_digest if sides.known is None else sides.known
    return sides.scan(base_digest, digest, tuple(counts), None if gathered is None else gathered.kept())


def _scan_together(run: Sequence[_Sides]) -> list[Scan]:
    """The same of pairs that are one block together."""
    line = list(accumulate((sides.words.size for sides in run), initial=0))
    after = joined([sides.words for sides in run])[0 : line[-1]]
    before = joined([sides.reference.source for sides in run])[0 : line[-1]]
    dtype = run[0].pair.info.dtype
    moved = np.flatnonzero(after != before)
    cuts = moved.searchsorted(line)
    places = moved - np.repeat(line[:-1], np.diff(cuts))
    low = lowest(places)
    steps = EXACT.encode(before[moved], after[moved], dtype) if moved.size <= _FEW * after.size else None
    digests = part_digests(after, line)
    plain = all(sides.known is None and sides.reference.unconverted for sides in run)
    base_digests = part_digests(before, line) if plain else [sides.base_digest() for sides in run]
    found = []
    for sides, (start, stop), (first, last), own, of_base in zip(
        run, pairwise(line), pairwise(cuts.tolist()), digests, base_digests, strict=True
    ):
        kept = None
        if last - first <= (stop - start) * KEPT_DENSITY:
            at = slice(first, last)
            taken = EXACT.encode(before[moved[at]], after[moved[at]], dtype) if steps is None else steps[at]
            if stop - start <= PAGE_WORDS:
                kept = KeptChanges(low[at], taken)
            else:
                gathered = Gathered(stop - start, dtype)
                gathered.add(places[at], taken)
                kept = gathered.kept()
        found.append(sides.scan(of_base, own, (last - first,) if stop > start else (), kept))
    return found


def known_scan(pair: Pair, base: Checkpoint, tuned: Checkpoint, known: Digests) -> Scan | None:
    """What is known of a pair without reading it: where `known` digests are equal."""
    digest = known.tuned.get(pair.name)
    if digest is None or pair.base_name is None or pair.base != pair.info or digest != known.base.get(pair.base_name):
        return None
    words = tuned.word_source(pair.name)
    reference = Reference(pair.info, pair.base, pair.base_words(base))
    none = (0,) * len(list(blocks(words.size)))
    return Scan(pair, reference, words, digest, digest, none, KeptChanges.none(pair.info.dtype))

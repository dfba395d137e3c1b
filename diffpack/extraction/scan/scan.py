"""Scan a pair of tensors once: hash both sides and find what differs while the bytes are in cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints import Checkpoint
from diffpack.extraction.scan.pairs import Pair
from diffpack.tensors.digests import PairHasher
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import blocks
from diffpack.tensors.reference import Reference
from diffpack.tensors.word_source import WordSource

KEPT_DENSITY = 1 / 16
"""Below it the positions found are kept (8 bytes each: half of a float32 tensor's bytes at most)."""


@dataclass
class Digests:
    """Digests (32 bytes) that are known before tensors are scanned, by the names in the files of both sides."""

    base: dict[str, bytes] = field(default_factory=dict)
    tuned: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """What a scan found. `changed` counts words that differ in each block; `positions` is None if many do."""

    pair: Pair
    reference: Reference
    tuned: WordSource
    base_digest: bytes | None
    digest: bytes
    changed: tuple[int, ...]
    positions: Positions | None

    @property
    def count(self) -> int:
        """How many words differ."""
        return sum(self.changed)

    def changed_blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of each block in which words differ."""
        for bounds, changed in zip(blocks(self.tuned.size), self.changed, strict=True):
            if changed:
                yield bounds

    @property
    def density(self) -> float:
        """Changed words / words (0 for a tensor without any)."""
        return self.count / self.tuned.size if self.tuned.size else 0.0

    @property
    def unchanged(self) -> bool:
        """Whether the tuned tensor is the base tensor it is compared with: same dtype, shape and bits."""
        pair = self.pair
        return pair.base is not None and not pair.resized and not pair.retyped and self.count == 0


def scan(pair: Pair, base: Checkpoint, tuned: Checkpoint, known: Digests | None = None) -> Scan:
    """Hash and compare one pair of tensors; those of which `known` digests are equal need not be read."""
    words = tuned.word_source(pair.name)
    base_words = pair.base_words(base)
    reference = Reference(pair.info, pair.base, base_words)
    if known is not None and pair.base_name is not None and pair.base == pair.info:
        digest = known.tuned.get(pair.name)
        if digest is not None and digest == known.base.get(pair.base_name):
            none = (0,) * len(list(blocks(words.size)))
            return Scan(pair, reference, words, digest, digest, none, np.empty(0, np.int64))
    hasher = PairHasher(base_words)
    counts: list[int] = []
    kept: list[npt.NDArray[np.int64]] | None = []
    count = 0
    for start, stop in blocks(words.size):
        block = words[start:stop]
        before = reference.slice(start, stop)
        hasher.update(start, block, before if reference.unconverted else None)
        positions = np.flatnonzero(block != before)
        counts.append(positions.size)
        count += positions.size
        if count > words.size * KEPT_DENSITY:
            kept = None
        if kept is not None and positions.size:
            kept.append(positions + start)
    digest, base_digest = hasher.digests(words.size)
    assert digest is not None
    places = None if kept is None else np.concatenate([np.empty(0, np.int64), *kept])
    return Scan(pair, reference, words, base_digest, digest, tuple(counts), places)

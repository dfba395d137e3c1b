"""Scan pairs of tensors once: hash both sides and find what differs while the bytes are in cache.

Small tensors that lie together are read and compared together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.joined_words import joined
from diffpack.extraction.scan.pairs import Pair
from diffpack.format.streams import Numbers
from diffpack.format.values.exact import EXACT
from diffpack.tensors.digests import PairHasher
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import blocks, parts_of
from diffpack.tensors.reference import Reference
from diffpack.tensors.word_source import WordSource

KEPT_DENSITY = 1 / 16
"""Below it what was found is kept: 8 bytes a position and those of a step, together less than a tensor's bytes."""
_FEW = 4 * KEPT_DENSITY
"""Changes in a block of small tensors of which some may be kept: their steps are taken all at once."""


@dataclass
class Digests:
    """Digests (32 bytes) that are known before tensors are scanned, by the names in the files of both sides."""

    base: dict[str, bytes] = field(default_factory=dict)
    tuned: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """What a scan found. `changed` counts words that differ in each block.

    `positions` are those that differ, `steps` the exact steps there; both are None if many do.
    """

    pair: Pair
    reference: Reference
    tuned: WordSource
    base_digest: bytes | None
    digest: bytes
    changed: tuple[int, ...]
    positions: Positions | None
    steps: Numbers | None

    @cached_property
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
        if self.positions is None:
            return None
        first, last = np.searchsorted(self.positions, [start, stop])
        return self.positions[first:last] - start

    @property
    def density(self) -> float:
        """Changed words / words (0 for a tensor without any)."""
        return self.count / self.tuned.size if self.tuned.size else 0.0

    @cached_property
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
    found = [_Comparison(pair, base, tuned, known.get(pair.base_name or "")) for pair in run]
    after, before = joined([item.words for item in found]), joined([item.reference.source for item in found])
    line = list(accumulate((item.words.size for item in found), initial=0))
    for start, stop in blocks(after.size):
        block, reference = after[start:stop], before[start:stop]
        moved = np.flatnonzero(block != reference)
        steps = None
        if moved.size <= _FEW * block.size:
            steps = EXACT.encode(reference[moved], block[moved], run[0].info.dtype)
        low = 0
        for at, first, last in parts_of(line, start, stop):
            high = int(moved.searchsorted(last - start)) if last < stop else moved.size
            own = slice(first - start, last - start)
            places = moved[low:high] + (start - line[at])
            taken = None if steps is None else steps[low:high]
            found[at].see(first - line[at], block[own], reference[own], places, taken)
            low = high
    return [item.scan() for item in found]


class _Comparison:
    """What is found out about a pair as its words are seen."""

    def __init__(self, pair: Pair, base: Checkpoint, tuned: Checkpoint, of_base: bytes | None) -> None:
        self.pair = pair
        self.words = tuned.word_source(pair.name)
        base_words = pair.base_words(base)
        self.reference = Reference(pair.info, pair.base, base_words)
        self._unconverted = self.reference.unconverted
        self._of_base = of_base
        self._hasher = PairHasher(base_words if of_base is None else None)
        self._counts: list[int] = []
        self._kept: list[Positions] | None = []
        self._steps: list[Numbers] = []
        self._most = self.words.size * KEPT_DENSITY

    def see(self, start: int, block: Words, before: Words, moved: Positions, steps: Numbers | None) -> None:
        """Take the words that begin at `start`, each once and in order; those at `moved` differ from the reference.

        `steps` are the exact steps there, if they are known.
        """
        self._hasher.update(start, block, before if self._unconverted else None)
        self._counts.append(moved.size)
        if self._kept is not None:
            if sum(self._counts) > self._most:
                self._kept, self._steps = None, []
                return
            if steps is None:
                own = moved - start
                steps = EXACT.encode(before[own], block[own], self.pair.info.dtype)
            self._kept.append(moved)
            self._steps.append(steps)

    def scan(self) -> Scan:
        """What was found, after all words were seen."""
        digest, base_digest = self._hasher.digests(self.words.size)
        assert digest is not None
        base_digest = base_digest if self._of_base is None else self._of_base
        positions, steps = (None, None) if self._kept is None else self._changes(self._kept)
        return Scan(self.pair, self.reference, self.words, base_digest, digest, tuple(self._counts), positions, steps)

    def _changes(self, kept: list[Positions]) -> tuple[Positions, Numbers]:
        if len(kept) == 1:
            return kept[0], self._steps[0]
        none = np.empty(0, self.pair.info.dtype.step)
        return np.concatenate([np.empty(0, np.int64), *kept]), np.concatenate([none, *self._steps])


def known_scan(pair: Pair, base: Checkpoint, tuned: Checkpoint, known: Digests) -> Scan | None:
    """What is known of a pair without reading it: where `known` digests are equal."""
    digest = known.tuned.get(pair.name)
    if digest is None or pair.base_name is None or pair.base != pair.info or digest != known.base.get(pair.base_name):
        return None
    words = tuned.word_source(pair.name)
    reference = Reference(pair.info, pair.base, pair.base_words(base))
    none = (0,) * len(list(blocks(words.size)))
    nowhere, nothing = np.empty(0, np.int64), np.empty(0, pair.info.dtype.step)
    return Scan(pair, reference, words, digest, digest, none, nowhere, nothing)

"""Lay tensors along a larger one, one after the other, as far as a few words show each to be near to what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.nearness import FAR, FIRST_WORDS, SKETCH_WORDS, Sketch, coarse, distance, sketch_places
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.slices import exchanged
from diffpack.tensors.word_source import WordSource

_NEAR, _NEAR_IF_SMALL = 0.5, 0.25
"""The share of the greatest distance below which tensors are near, and those too small for a whole sketch.

Strangers' is about 0.9, with a deviation of 0.1 over 16 words; that of fine-tunes 0.1."""
_MOST_MISSED = 64
"""After so many places of one tensor that nothing is near to, no more are looked at."""


@dataclass(frozen=True)
class Part:
    """A tensor that is one entry a word."""

    name: str
    info: TensorInfo
    words: WordSource

    @property
    def entries(self) -> int:
        """How many entries it has."""
        return prod(self.info.shape)

    def shape(self, swapped: bool) -> tuple[int, ...]:
        """Its shape, `swapped` with the last two dimensions exchanged."""
        return exchanged(self.info.shape) if swapped else self.info.shape

    def sketch(self, swapped: bool, start: int, entries: int) -> Sketch:
        """A sketch of the tensor that its entries from `start` on would be."""
        places = [(start + a, start + b) for a, b in sketch_places(entries)]
        if not swapped:
            return coarse(np.concatenate([self.words[a:b] for a, b in places]), self.info.dtype)
        stored = self._stored(np.concatenate([np.arange(a, b) for a, b in places]))
        order = np.argsort(stored)
        words = np.empty(stored.size, self.words.dtype)
        words[order] = self.words[stored[order]]
        return coarse(words, self.info.dtype)

    def _stored(self, positions: Positions) -> Positions:
        """Where entries are stored that have these positions in the swapped tensor."""
        rows, columns = self.info.shape[-2:]
        block, within = np.divmod(positions, rows * columns)
        column, row = np.divmod(within, rows)
        stored: Positions = block * (rows * columns) + row * columns + column
        return stored


@dataclass(frozen=True)
class Tile:
    """A part and the entry of the whole at which it begins, both read as they are, or `swapped`."""

    part: Part
    swapped: bool
    start: int


@dataclass(frozen=True)
class Laid:
    """The tiles along a whole, which is read `swapped`."""

    swapped: bool
    tiles: list[Tile]


@dataclass(frozen=True)
class _Kind:
    """Parts with equally many entries that may lie along one whole, and their sketches, a column each."""

    parts: list[Part]
    sketches: Sketch


class Shelf:
    """Parts by what they fit along: the length of their rows, and how many entries they have; sketched when wanted."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._kinds: dict[tuple[bool, int | None], dict[int, _Kind]] = {}

    def kinds(self, swapped: bool, row: int | None) -> dict[int, _Kind]:
        """Parts whose rows, read `swapped`, have `row` entries, by their size; row None: those of one dimension."""
        key = swapped, row
        if key not in self._kinds:
            by_size: dict[int, list[Part]] = {}
            for part in self._parts:
                if _fits(part, swapped, row):
                    by_size.setdefault(part.entries, []).append(part)
            self._kinds[key] = {size: _kind(parts, swapped) for size, parts in sorted(by_size.items())}
        return self._kinds[key]


def _fits(part: Part, swapped: bool, row: int | None) -> bool:
    dimensions = len(part.info.shape)
    if row is None:
        return dimensions == 1
    return dimensions > swapped and part.shape(swapped)[-1] == row


def _kind(parts: list[Part], swapped: bool) -> _Kind:
    return _Kind(parts, np.stack([part.sketch(swapped, 0, part.entries) for part in parts], axis=1))


def along(whole: Part, shelf: Shelf, allowed: Callable[[str], bool] | None = None) -> Laid | None:
    """Lay parts of the shelf along a whole, either as they are or with their last two dimensions exchanged.

    All of the whole is covered, or it is None. With `allowed` only parts of such names are laid, each once, and what
    nothing is near to stays bare. Of parts that are equally near that is taken whose name is most like the whole's.
    """
    several = len(whole.info.shape) > 1
    for swapped, parts_swapped in ((False, False), (True, True), (True, False), (False, True)):
        if several or not (swapped or parts_swapped):
            tiles = list(_tiles(whole, swapped, parts_swapped, shelf, allowed))
            if tiles and (allowed is not None or sum(tile.part.entries for tile in tiles) == whole.entries):
                return Laid(swapped, tiles)
    return None


def _tiles(
    whole: Part, swapped: bool, parts_swapped: bool, shelf: Shelf, allowed: Callable[[str], bool] | None
) -> Iterator[Tile]:
    row = whole.shape(swapped)[-1] if len(whole.info.shape) > 1 else None
    kinds = shelf.kinds(parts_swapped, row)
    used: set[str] = set()
    start = missed = 0
    while kinds and start < whole.entries:
        part = _nearest(
            whole,
            swapped,
            start,
            kinds,
            swapped != parts_swapped,
            lambda name: name in used or not (allowed is None or allowed(name)),
        )
        if part is not None:
            used.add(part.name)
            yield Tile(part, parts_swapped, start)
            start += part.entries
        elif allowed is None or missed == _MOST_MISSED:
            return
        else:
            missed += 1
            start += min(kinds)


def _nearest(
    whole: Part, swapped: bool, start: int, kinds: dict[int, _Kind], turned: bool, barred: Callable[[str], bool]
) -> Part | None:
    """The part nearest to the entries of a whole from `start` on, if one is near; `turned`: one of both is swapped."""
    best: tuple[float, int, str] | None = None
    found = None
    for size, kind in kinds.items():
        if start + size > whole.entries:
            continue
        sketch = whole.sketch(swapped, start, size)
        most = _most(sketch)
        first = distance(kind.sketches[:FIRST_WORDS], sketch[:FIRST_WORDS])
        close = np.flatnonzero(first <= _NEAR * FAR * min(FIRST_WORDS, sketch.size))
        distances: npt.NDArray[np.int64] = distance(kind.sketches[:, close], sketch)
        for at, steps in zip(close, distances, strict=True):
            if steps > most:
                continue
            part = kind.parts[at]
            if part.info == whole.info and not turned:  # all of another tensor is no slice
                continue
            rank = float(steps) / sketch.size, -_alike(part.name, whole.name), part.name
            if (best is None or rank < best) and not barred(part.name):
                best, found = rank, part
    return found


def near(sketch: Sketch, other: Sketch) -> bool:
    """Whether tensors of one dtype and size are near by their sketches."""
    return bool(distance(sketch[:, None], other)[0] <= _most(other))


def _most(sketch: Sketch) -> float:
    """The distance up to which a sketch is near."""
    return (_NEAR_IF_SMALL if sketch.size < SKETCH_WORDS else _NEAR) * FAR * sketch.size


def _alike(name: str, other: str) -> int:
    """How many characters two names have in common before they part."""
    return next((at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other)))

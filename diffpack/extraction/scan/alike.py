"""Tensors of two checkpoints that could be one another by dtype and shape, and which of them are, by contents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.extraction.scan.nearness import FAR, Sketch, distance, sketch_of
from diffpack.extraction.scan.scan import Digests
from diffpack.support.parallel import run_all
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference, comparable

NEAR = 1536
"""Sketches no farther apart are of one tensor before and after it was tuned: on the real pair these are at most 674
apart, other tensors with numbers of their own 3,400 and more (of 4,096)."""
_CLEARLY = 2
"""A match must be so many times nearer than the next, and by `_MARGIN`: norms are all near one another."""
_MARGIN = 64
_FEW_WORDS, _AVERAGE_FAR = 8, FAR / 2
"""Words of a sketch, spread over it, that most strangers are told by: they are farther apart, each, than this."""
_NUMBER = re.compile(r"\d+")
_DISTINCT = 8
"""A tensor with fewer different words in its sketch (all zeros, all ones, a scalar) is known by its name alone."""


@dataclass(frozen=True)
class Kind:
    """Tuned tensors of one dtype and shape, `names`, and base tensors that could be them, `owns`; a sketch of each.

    Sketches are columns, in the tuned dtype.
    """

    names: list[str]
    owns: list[str]
    of_names: Sketch
    of_owns: Sketch

    @cached_property
    def name_at(self) -> dict[str, int]:
        """The columns of the tuned tensors."""
        return {name: at for at, name in enumerate(self.names)}

    @cached_property
    def own_at(self) -> dict[str, int]:
        """The columns of the base tensors."""
        return {own: at for at, own in enumerate(self.owns)}

    def apart(self, name: str, own: str) -> int:
        """How far two sketches are apart."""
        at = self.own_at[own]
        return int(distance(self.of_owns[:, at : at + 1], self.of_names[:, self.name_at[name]])[0])

    def within(self, names: list[str], owns: list[str], farthest: int | None) -> npt.NDArray[np.bool_]:
        """Whether sketches are at most so far apart (names x owns; None: all are)."""
        if farthest is None:
            return np.ones((len(names), len(owns)), bool)
        of_owns = self.of_owns[:, [self.own_at[own] for own in owns]]
        return np.stack([distance(of_owns, self.of_names[:, self.name_at[name]]) <= farthest for name in names])

    def telling(self, name: str) -> bool:
        """Whether a tuned tensor's numbers tell it from others at all."""
        return np.unique(self.of_names[:, self.name_at[name]]).size >= _DISTINCT

    @cached_property
    def _equal_owns(self) -> Counter[bytes]:
        return Counter(column.tobytes() for column in self.of_owns.T)

    def moved(self, name: str, own: str) -> bool | None:
        """Whether a pair of one name is none: one of another number is clearly nearer to the tuned or the base tensor.

        None if contents cannot tell.
        """
        at, there = self.name_at[name], self.own_at[own]
        if not self.telling(name):
            return None
        far = self.apart(name, own)
        most = min(NEAR, (far - _MARGIN) // _CLEARLY)
        if most >= 0:
            others = [self.owns[other] for other, _ in _within(self.of_owns, self.of_names[:, at], most)]
            if far > NEAR:
                others += [self.names[other] for other, _ in _within(self.of_names, self.of_owns[:, there], most)]
            if any(other not in (name, own) and numberless(other) == numberless(own) for other in others):
                return True
        return False if self._equal_owns[self.of_owns[:, there].tobytes()] == 1 else None

    def equal(self, names: Iterable[str], owns: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
        """Those of equal sketches: (names, owns), neither of them empty."""
        groups: dict[bytes, tuple[list[str], list[str]]] = {}
        for name in names:
            groups.setdefault(self.of_names[:, self.name_at[name]].tobytes(), ([], []))[0].append(name)
        for own in owns:
            column = self.of_owns[:, self.own_at[own]].tobytes()
            if column in groups:
                groups[column][1].append(own)
        yield from ((here, there) for here, there in groups.values() if there)

    def nearest(self, names: list[str], owns: list[str]) -> Iterator[tuple[str, str]]:
        """Pairs that are near, and clearly nearer to each other than to anything else that is given."""
        of_owns = self.of_owns[:, [self.own_at[own] for own in owns]]
        from_owns: dict[int, list[tuple[int, int]]] = {}
        best: dict[int, int] = {}
        for at, name in enumerate(names):
            found = _within(of_owns, self.of_names[:, self.name_at[name]], _CLEARLY * NEAR + _MARGIN)
            for there, far in found:
                from_owns.setdefault(there, []).append((far, at))
            if _clear([far for _, far in found]) and self.telling(name):
                best[at] = found[0][0]
        for at, there in best.items():
            nearest = sorted(from_owns[there])
            if nearest[0][1] == at and _clear([far for far, _ in nearest]):
                yield names[at], owns[there]


def numberless(name: str) -> str:
    """A name with one mark for each number: the tensors of a stack of layers have one in common."""
    return _NUMBER.sub("#", name)


def _within(sketches: Sketch, sketch: Sketch, most: int) -> list[tuple[int, int]]:
    """The columns at most so far from a sketch, with their distances, nearest first."""
    few = slice(None, None, max(len(sketch) // _FEW_WORDS, 1))
    some = sketch[few]
    at = np.flatnonzero(distance(sketches[few], some) <= min(most, len(some) * _AVERAGE_FAR))
    distances: npt.NDArray[np.int64] = distance(sketches[:, at], sketch)
    order = np.argsort(distances, kind="stable")
    return [(int(at[each]), int(distances[each])) for each in order if distances[each] <= most]


def _clear(distances: list[int]) -> bool:
    """Whether the first of the distances, nearest first, is near and clearly less than the next."""
    if not distances or distances[0] > NEAR:
        return False
    return len(distances) == 1 or distances[1] >= _CLEARLY * distances[0] + _MARGIN


def kinds(
    base: Checkpoint, tuned: Checkpoint, owns: Iterable[str], names: Iterable[str], threads: int | None
) -> list[Kind]:
    """Put tensors of both sides that could be one another together, with their sketches; read only of those."""
    of_shape: dict[tuple[int, ...], list[str]] = {}
    for own in sorted(owns):
        of_shape.setdefault(base.info(own).shape, []).append(own)
    alike: dict[TensorInfo, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(tuned.info(name), []).append(name)
    found = []
    for info, here in alike.items():
        there = [own for own in of_shape.get(info.shape, ()) if comparable(base.info(own), info)]
        if not there or not info.words:
            continue
        rows = run_all([partial(_sketch, tuned, name, info) for name in here], threads)
        own_rows = run_all([partial(_sketch, base, own, info) for own in there], threads)
        found.append(Kind(here, there, np.stack(rows, axis=1), np.stack(own_rows, axis=1)))
    return found


def _sketch(checkpoint: Checkpoint, name: str, info: TensorInfo) -> Sketch:
    own, words = checkpoint.info(name), checkpoint.word_source(name)
    return sketch_of(words, info.dtype, None if own == info else Reference(info, own, words))


def told_apart(
    base: Checkpoint, tuned: Checkpoint, names: list[str], owns: list[str], digests: Digests, threads: int | None
) -> Iterator[tuple[list[str], list[str]]]:
    """Those of equal sketches by their whole contents: (names, owns) of equal digests, neither of them empty."""
    digests.tuned |= digests_of(tuned, (name for name in names if name not in digests.tuned), threads)
    digests.base |= digests_of(base, (own for own in owns if own not in digests.base), threads)
    groups: dict[bytes, tuple[list[str], list[str]]] = {}
    for name in names:
        groups.setdefault(digests.tuned[name], ([], []))[0].append(name)
    for own in owns:
        if digests.base[own] in groups:
            groups[digests.base[own]][1].append(own)
    yield from ((here, there) for here, there in groups.values() if there)

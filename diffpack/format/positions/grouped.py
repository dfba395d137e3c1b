"""Words of a span coded class by class: a class not at all, as gaps and numbers, or as a number for every word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format import limits
from diffpack.format.manifest import Group
from diffpack.format.positions import gaps
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions

CLASS_WORDS = 4096
"""Neighbouring keys share a class until it has this many words: a smaller one costs more than it tells."""
DENSE_CLASS = 0.2
"""From this share of changed words on, a class codes its zeros too: as small as gaps, and faster."""

UNCHANGED, GAPS, ALL = range(3)
"""How a class is stored: not at all, as gaps and numbers, or as a number for every word."""


def members(keys: npt.NDArray[Any]) -> list[Positions]:
    """The words of each class, as sorted positions in `keys`, from the smallest key up.

    `keys` are integers (1-D), one a word; they are counted, so their range should be small.
    """
    if not keys.size:
        return []
    raised = (keys - keys.min()).astype(np.intp)
    counts = np.bincount(raised)
    classes = np.empty(counts.size, np.int64)
    current = held = 0
    for key, count in enumerate(counts.tolist()):
        classes[key] = current
        held += count
        if held >= CLASS_WORDS:
            current, held = current + 1, 0
    last = max(current - 1, 0)
    classes = np.minimum(classes, last)  # what is left over joins the last class
    if not last:
        return [np.arange(keys.size)]
    own = classes.astype(np.uint8 if last < 256 else np.uint16).take(raised)
    order = np.argsort(own, kind="stable")  # a radix sort for numbers this small
    return np.split(order, np.cumsum(np.bincount(own, minlength=last + 1))[:-1])


def encode(classes: Sequence[Positions], numbers: Numbers) -> tuple[list[int], list[Numbers]]:
    """How each class is stored, and the streams of the classes; `numbers` are those of all words."""
    kinds: list[int] = []
    streams: list[Numbers] = []
    for positions in classes:
        part = numbers[positions]
        places = np.flatnonzero(part)
        if places.size >= part.size * DENSE_CLASS:
            kinds.append(ALL)
            streams.append(part)
        elif places.size:
            kinds.append(GAPS)
            streams += [gaps.encode(places, 0), part[places]]
        else:
            kinds.append(UNCHANGED)
    return kinds, streams


def decode(
    kinds: Sequence[int], streams: Sequence[Numbers], classes: Sequence[Positions], where: str
) -> Iterator[tuple[Positions, Numbers] | None]:
    """For each class the positions (in the span) it changes and their numbers, None if none.

    Raises `CorruptFileError` (K rules).
    """
    if len(kinds) != len(classes):
        raise CorruptFileError(f"{where}: {len(kinds)} classes stored, the span has {len(classes)}", "K2")
    following = iter(streams)
    for kind, positions in zip(kinds, classes, strict=True):
        if kind == ALL:
            part = next(following)
            if part.size != positions.size:
                raise CorruptFileError(f"{where}: {part.size} numbers for {positions.size} words", "K3")
            yield positions, part
        elif kind == GAPS:
            places = gaps.decode(next(following), 0, positions.size, where)
            yield positions[places], next(following)
        else:
            yield None


def most(words: int) -> int:
    """How many classes a span of so many words can have."""
    return max(1, words // CLASS_WORDS)


def check(kinds: Sequence[int], streams: Sequence[Numbers], dtype: np.dtype[Any], where: str) -> None:
    """Check that the streams are those the kinds ask for, with numbers of `dtype`. Raises `CorruptFileError`."""
    if any(kind > ALL for kind in kinds):
        raise CorruptFileError(f"{where}: a class stored in an unknown way", "K2")
    following = iter(streams)
    for kind in kinds:
        places = next(following, None) if kind == GAPS else None
        numbers = next(following, None) if kind != UNCHANGED else None
        if kind != UNCHANGED and (numbers is None or numbers.dtype != dtype):
            raise CorruptFileError(f"{where}: a class without its numbers", "K2")
        if kind == GAPS and numbers is not None:
            if places is None or places.dtype.kind != "u" or places.size != numbers.size:
                raise CorruptFileError(f"{where}: a class whose gaps and numbers do not fit", "K2")
            if not numbers.all():
                raise CorruptFileError(f"{where}: a step of 0", "V2")
    if next(following, None) is not None:
        raise CorruptFileError(f"{where}: streams that no class uses", "K2")


def check_spans(group: Group, coding: str, where: str) -> None:
    """Check that no span has more words than classes are made of at once. Raises `CorruptFileError` (F8)."""
    if any(b - a > limits.CLASSES_SPAN_WORDS for a, b in pairwise((0, *group.ends))):
        raise CorruptFileError(f"{where}: a span of {coding} over the limit", "F8")

"""Words of a span coded class by class: a class not at all, as gaps and numbers, or as a number for every word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format import limits
from diffpack.format.manifest import Group
from diffpack.format.positions import gaps
from diffpack.format.positions.split import CLASS_WORDS, Change, Split
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import Positions

DENSE_CLASS = 0.2
"""From this share of changed words on, a class codes its zeros too: as small as gaps, and faster."""

UNCHANGED, GAPS, ALL = range(3)
"""How a class is stored: not at all, as gaps and numbers, or as a number for every word."""


def encode(split: Split, places: Positions, numbers: Numbers) -> tuple[list[int], list[Numbers]]:
    """How each class is stored, and the streams of the classes.

    `numbers` are those of the words at `places` (in the span, sorted), none of which is 0; all others are 0.
    """
    if not split.few(places.size, len(split)):
        dense = np.zeros(split.words, numbers.dtype)
        dense[places] = numbers
        return encode_ordered(split, dense[split.order()])
    kinds, streams = [UNCHANGED] * len(split), []
    for index, which, ranks in split.ranks(places):
        part, size = numbers[which], split.sizes[index]
        if _dense(ranks.size, size):
            kinds[index] = ALL
            streams.append(np.zeros(size, numbers.dtype))
            streams[-1][ranks] = part
        else:
            kinds[index] = GAPS
            streams += [gaps.encode(ranks, 0), part]
    return kinds, streams


def encode_all(split: Split, numbers: Numbers) -> tuple[list[int], list[Numbers]]:
    """The same for a number for each word of the span, in the order of the line."""
    if split.few(int(np.count_nonzero(numbers)), len(split)):
        places = np.flatnonzero(numbers != 0)
        return encode(split, places, numbers[places])
    return encode_ordered(split, numbers[split.order()])


def encode_ordered(split: Split, numbers: Numbers) -> tuple[list[int], list[Numbers]]:
    """The same for a number for each word, class by class (`Split.order`)."""
    kinds: list[int] = []
    streams: list[Numbers] = []
    for start, stop in pairwise(split.bounds):
        part = numbers[start:stop]
        changes = int(np.count_nonzero(part))
        if _dense(changes, part.size):
            kinds.append(ALL)
            streams.append(part)
        elif changes:
            places = np.flatnonzero(part != 0)
            kinds.append(GAPS)
            streams += [gaps.encode(places, 0), part[places]]
        else:
            kinds.append(UNCHANGED)
    return kinds, streams


def _dense(changes: int, words: int) -> bool:
    """Whether a class is stored as a number for every word."""
    return changes >= words * DENSE_CLASS


def decode(kinds: Sequence[int], streams: Sequence[Numbers], split: Split, where: str) -> Iterator[Change]:
    """Each class that changes: its index, the ranks of the words that change in it (None: all), their numbers.

    Raises `CorruptFileError` (K rules).
    """
    return checked(kinds, streams, split.sizes, where)


def checked(kinds: Sequence[int], streams: Sequence[Numbers], sizes: Sequence[int], where: str) -> Iterator[Change]:
    """The same of classes of so many words each. Raises `CorruptFileError` (K2, K3, P1)."""
    if len(kinds) != len(sizes):
        raise CorruptFileError(f"{where}: {len(kinds)} classes stored, the span has {len(sizes)}", "K2")
    following = iter(streams)
    for index, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        if kind == ALL:
            part = next(following)
            if part.size != size:
                raise CorruptFileError(f"{where}: {part.size} numbers for {size} words", "K3")
            yield index, None, part
        elif kind == GAPS:
            ranks = gaps.decode(next(following), 0, size, where)
            yield index, ranks, next(following)


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

# Kept as it was released with format 1.1; nothing is changed but this line.
"""Numbers coded in classes of like words, and `classes` groups (alike by exponent): section 5 of format.md."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from .words import Array, check, positions_of

MANTISSA = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}
Stored = list[tuple[Array | None, Array | None]]  # gaps and numbers of each class, where it has them


def exponents_of(words: Array, dtype: str) -> Array:
    bits = words.view(f"<u{words.itemsize}")
    return ((bits & np.iinfo(words.dtype).max) >> MANTISSA[dtype]).astype("<i4")


def classes_of(levels: Array) -> list[Array]:
    """Return the places of each class in the words of a span, given the integer that makes words alike."""
    ends = [0]
    for end in np.cumsum(np.unique(levels, return_counts=True)[1]).tolist():
        if end - ends[-1] >= 4096:
            ends.append(end)
    ends[max(len(ends) - 1, 1) :] = [len(levels)]  # the rest joins the last class, or is the only one
    order = np.argsort(levels, kind="stable")
    return [np.sort(order[start:stop]) for start, stop in pairwise(ends)]


def check_classes(kinds: Array, streams: list[Array], words: int, width: int) -> Stored:
    """Check the streams of a span's classes, as far as that needs no class."""
    check(len(kinds) <= max(words // 4096, 1), "K2", "more classes than the span can have")
    check((kinds <= 2).all(), "K2", "a kind that is not 0, 1 or 2")
    check(len(streams) == int((kinds == 1).sum()) * 2 + int((kinds == 2).sum()), "K2", "not the streams asked for")
    rest, result = iter(streams), Stored()
    for kind in kinds.tolist():
        gaps = next(rest) if kind == 1 else None
        numbers = next(rest) if kind else None
        check(numbers is None or numbers.dtype == f"<i{width}", "K2", "numbers of another dtype")
        if gaps is not None and numbers is not None:
            check(gaps.dtype.kind == "u" and len(gaps) == len(numbers), "K2", "gaps and numbers do not fit")
            check(numbers.all(), "V2", "a number of 0 after a gap")
        result.append((gaps, numbers))
    return result


def numbers_of(stored: Stored, classes: list[Array]) -> Iterator[tuple[int, Array, Array]]:
    """Yield of each class that has numbers: which it is, the places in the span, the numbers."""
    check(len(stored) == len(classes), "K2", f"{len(stored)} kinds for {len(classes)} classes")
    for i, (places, (gaps, numbers)) in enumerate(zip(classes, stored, strict=True)):
        if gaps is not None:
            check(len(gaps) <= len(places), "P1", "more gaps than words")
            places = places[positions_of(gaps, 0, len(places))]
        if numbers is not None:
            check(len(numbers) == len(places), "K3", "not one number a word")
            yield i, places, numbers


def read_classes(streams: list[Array], words: Array | None, size: int, width: int, dtype: str) -> Array | None:
    """Return the step of each word of a span; without the base (no words), check the form only."""
    check(streams and streams[0].dtype == "u1", "K2", "a span without kinds")
    stored = check_classes(streams[0], streams[1:], size, width)
    if words is None:
        return None
    result = np.zeros_like(words)
    for _, places, steps in numbers_of(stored, classes_of(exponents_of(words, dtype))):
        result[places] = steps
    return result

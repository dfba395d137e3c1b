# Kept as it was released with format 1.0; changed are this line and the imports of pages, which have a dot now.
"""Steps coded in classes of the base's exponent: `classes` groups, section 5 of format.md."""

import numpy as np
from .words import Array, check, positions_of

MANTISSA = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}


def classes_of(words: Array, dtype: str) -> list[Array]:
    """Return the places of each class in the words of a span."""
    bits = words.view(f"<u{words.itemsize}")
    exponents = (bits & np.iinfo(words.dtype).max) >> MANTISSA[dtype]
    classes: list[Array] = []
    taken: list[int] = []
    for exponent in np.unique(exponents):
        taken.append(exponent)
        places = np.flatnonzero(np.isin(exponents, taken))
        if len(places) >= 4096:
            classes.append(places)
            taken = []
    if taken:
        rest = np.flatnonzero(np.isin(exponents, taken))
        classes = [*classes[:-1], np.sort(np.concatenate([*classes[-1:], rest]))]
    return classes


def check_classes(streams: list[Array], width: int) -> list[tuple[Array | None, Array | None]]:
    """Check the streams of a span; return gaps and steps of each class, where it has them."""
    kinds, rest = streams[0], iter(streams[1:])
    check(kinds.dtype == "u1" and (kinds <= 2).all(), "K2", "a kind that is not 0, 1 or 2")
    check(len(streams) - 1 == int((kinds == 1).sum()) * 2 + int((kinds == 2).sum()), "K2", "not the streams asked for")
    result: list[tuple[Array | None, Array | None]] = []
    for kind in kinds.tolist():
        gaps = next(rest) if kind == 1 else None
        steps = next(rest) if kind else None
        check(steps is None or steps.dtype == f"<i{width}", "K2", "steps of another width")
        if gaps is not None and steps is not None:
            check(gaps.dtype.kind == "u" and len(gaps) == len(steps), "K2", "gaps and steps do not fit")
            check(steps.all(), "V2", "a step of 0")
        result.append((gaps, steps))
    return result


def steps_of(streams: list[Array], words: Array, dtype: str) -> Array:
    """Return the step of each word of a span."""
    result, classes = np.zeros_like(words), classes_of(words, dtype)
    stored = check_classes(streams, words.itemsize)
    check(len(stored) == len(classes), "K2", f"{len(stored)} classes where the base has {len(classes)}")
    for places, (gaps, steps) in zip(classes, stored, strict=True):
        if gaps is not None:
            places = places[positions_of(gaps, 0, len(places))]
        if steps is not None:
            check(gaps is not None or len(steps) == len(places), "K3", "not one step a word")
            result[places] = steps
    return result

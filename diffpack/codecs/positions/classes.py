"""Steps in classes of the reference's exponent: what both sides know about a word decides how it is coded.

In a narrow dtype a weight moves only if its update exceeds half a unit in the last place, so the chance to change
doubles with each exponent below; in a wide one the size of a step follows the exponent. Words of like exponent are
therefore coded together: first all of the smallest, in the order of the line, then the next.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpack.codecs.positions import gaps
from diffpack.codecs.streams import Numbers
from diffpack.codecs.values import exact
from diffpack.dtypes import DType, Words
from diffpack.errors import CorruptFileError

CLASS_WORDS = 4096
"""Neighbouring exponents share a class until it has this many words: a smaller one costs more than it tells."""
MANTISSA_BITS = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}
SIGN = 1  # bits above the exponent
DENSE = 0.3  # from this share of changed words on, a class codes its zeros too

UNCHANGED, GAPS, ALL = range(3)
"""How a class is stored: not at all, as gaps and steps, or as a step for every word."""


def members(reference: Words, dtype: DType) -> list[npt.NDArray[np.int64]]:
    """Give the words of each class, as sorted positions in `reference`, from the smallest exponent up."""
    if not reference.size:
        return []
    bits = np.array(MANTISSA_BITS[dtype.name] + SIGN, reference.dtype)
    exponents = ((reference << np.array(SIGN, reference.dtype)) >> bits).astype(np.uint16)
    counts = np.bincount(exponents)
    classes = np.empty(counts.size, np.int64)
    current = held = 0
    for exponent, count in enumerate(counts.tolist()):
        classes[exponent] = current
        held += count
        if held >= CLASS_WORDS:
            current, held = current + 1, 0
    last = max(current - 1, 0)
    classes = np.minimum(classes, last)  # what is left over joins the last class
    if not last:
        return [np.arange(reference.size)]
    own = classes.astype(np.uint8 if last < 256 else np.uint16)[exponents]
    order = np.argsort(own, kind="stable")  # a radix sort for numbers this small
    return np.split(order, np.cumsum(np.bincount(own, minlength=last + 1))[:-1])


def encode(reference: Words, tuned: Words, dtype: DType) -> list[Numbers]:
    """Give the streams of a span: how each class is stored (u8), then the streams of the classes."""
    steps = exact.encode(reference, tuned, dtype)
    kinds: list[int] = []
    streams: list[Numbers] = []
    for positions in members(reference, dtype):
        part = steps[positions]
        places = np.flatnonzero(part)
        if places.size >= part.size * DENSE:
            kinds.append(ALL)
            streams.append(part)
        elif places.size:
            kinds.append(GAPS)
            streams += [gaps.encode(places, 0), part[places]]
        else:
            kinds.append(UNCHANGED)
    return [np.array(kinds, np.uint8), *streams]


def decode(streams: list[Numbers], reference: Words, dtype: DType, where: str) -> Numbers:
    """Give the steps of all words of a span. Raises `CorruptFileError` (K rules)."""
    steps = np.zeros(reference.size, dtype.step)
    classes = members(reference, dtype)
    if streams[0].size != len(classes):
        raise CorruptFileError(f"{where}: {streams[0].size} classes stored, the base has {len(classes)}", "K2")
    following = iter(streams[1:])
    for kind, positions in zip(streams[0].tolist(), classes, strict=True):
        if kind == ALL:
            part = next(following)
            if part.size != positions.size:
                raise CorruptFileError(f"{where}: {part.size} steps for {positions.size} words", "K3")
            steps[positions] = part
        elif kind == GAPS:
            places = gaps.decode(next(following), 0, positions.size, where)
            steps[positions[places]] = next(following)
    return steps


def check(streams: list[Numbers], dtype: DType, where: str) -> None:
    """Check what can be checked without the base: the streams are those the kinds ask for."""
    kinds = streams[0]
    if kinds.dtype != np.uint8 or (kinds.size and int(kinds.max()) > ALL):
        raise CorruptFileError(f"{where}: its first stream does not say how classes are stored", "K2")
    following = iter(streams[1:])
    for kind in kinds.tolist():
        places = next(following, None) if kind == GAPS else None
        steps = next(following, None) if kind != UNCHANGED else None
        if kind != UNCHANGED and (steps is None or steps.dtype != dtype.step):
            raise CorruptFileError(f"{where}: a class without its steps", "K2")
        if kind == GAPS and steps is not None:
            if places is None or places.dtype.kind != "u" or places.size != steps.size:
                raise CorruptFileError(f"{where}: a class whose gaps and steps do not fit", "K2")
            if not steps.all():
                raise CorruptFileError(f"{where}: a step of 0", "V2")
    if next(following, None) is not None:
        raise CorruptFileError(f"{where}: streams that no class uses", "K2")

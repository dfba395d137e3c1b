"""Steps in classes of the reference's exponent, format 1.0 (`levels` does the same and more; this is only read).

In a narrow dtype a weight moves only if its update exceeds half a unit in the last place, so the chance to change
doubles with each exponent below; in a wide one the size of a step follows the exponent. Words of like exponent are
therefore coded together: first all of the smallest, in the order of the line, then the next.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError
from diffpack.format.positions import grouped
from diffpack.format.positions.gaps import Positions
from diffpack.format.streams import Numbers
from diffpack.tensors.dtypes import DType, Words

MANTISSA_BITS = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}
SIGN = 1  # bits above the exponent


def exponents(reference: Words, dtype: DType) -> npt.NDArray[np.uint16]:
    """Give the exponent of each word: its bits without sign and mantissa."""
    bits = np.array(MANTISSA_BITS[dtype.name] + SIGN, reference.dtype)
    found: npt.NDArray[np.uint16] = ((reference << np.array(SIGN, reference.dtype)) >> bits).astype(np.uint16)
    return found


def members(reference: Words, dtype: DType) -> list[Positions]:
    """Give the words of each class, as sorted positions in `reference`, from the smallest exponent up."""
    return grouped.members(exponents(reference, dtype))


def decode(streams: list[Numbers], reference: Words, dtype: DType, where: str) -> Numbers:
    """Give the steps of all words of a span. Raises `CorruptFileError` (K rules)."""
    steps = np.zeros(reference.size, dtype.step)
    for found in grouped.decode(streams[0].tolist(), streams[1:], members(reference, dtype), where):
        if found is not None:
            positions, part = found
            steps[positions] = part
    return steps


def check(streams: list[Numbers], words: int, dtype: DType, where: str) -> None:
    """Check what can be checked without the base: the streams of a span are those the kinds ask for."""
    if not streams or streams[0].dtype != np.uint8 or streams[0].size > grouped.most(words):
        raise CorruptFileError(f"{where}: its first stream does not say how classes are stored", "K2")
    grouped.check(streams[0].tolist(), streams[1:], dtype.step, where)

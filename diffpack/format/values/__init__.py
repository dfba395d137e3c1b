"""What changes at a position: one file a kind of value.

| coding | stream | a number means |
|---|---|---|
| exact | signed, as wide as a word | a step on the ordered-integer line |
| f32 f16 bf16 | i32 i16 i16 | a float to add, as its ordered integer |
| int8 | i8 | a multiple of the record's scale, to add |
| grid | i16 | a point of the record's grid, to add; its class says where in the cell the point lies |
"""

from __future__ import annotations

import numpy as np

from diffpack.format.values.floats import FLOATS
from diffpack.tensors.dtypes import DType

CODINGS = ("exact", *FLOATS, "int8", "grid")
"""Ids of the value codings a group may use."""
SCALED = frozenset({"int8", "grid"})
"""Codings whose groups have a scale for each record."""
_WIDTHS: dict[str, np.dtype[np.signedinteger]] = {"int8": np.dtype("<i1"), "grid": np.dtype("<i2")}


def stream_dtype(coding: str, dtype: DType) -> np.dtype[np.signedinteger]:
    """Give the dtype of a coding's stream for tensors of `dtype`."""
    if coding == "exact":
        return dtype.step
    return _WIDTHS[coding] if coding in SCALED else FLOATS[coding].step

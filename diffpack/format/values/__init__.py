"""What changes at a position: one file a kind of value; this is their registry.

| coding | stream | a number means |
|---|---|---|
| exact | signed, as wide as a word | a step on the ordered-integer line |
| f32 f16 bf16 | i32 i16 i16 | a float to add, as its ordered integer |
| int8 | i8 | a multiple of the record's scale, to add |
| grid | i16 | a point of the record's grid, to add; its class says where in the cell the point lies |
"""

from __future__ import annotations

from diffpack.format.values.coding import NO_SCALE, ValueCoding
from diffpack.format.values.exact import EXACT
from diffpack.format.values.floats import BF16, F16, F32
from diffpack.format.values.grid import GRID
from diffpack.format.values.int8 import INT8

__all__ = ["NO_SCALE", "VALUE_CODINGS", "ValueCoding"]

VALUE_CODINGS: dict[str, ValueCoding] = {coding.id: coding for coding in (EXACT, F32, F16, BF16, INT8, GRID)}
"""Every value coding a group may use, by its id."""

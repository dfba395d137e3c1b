# Kept as it was released with format 1.1; nothing is changed but this line.
"""Numbers coded in classes of levels, and `grid` values: `levels` groups, section 5 of format.md."""

import math
from bisect import bisect_left, bisect_right
from typing import Any, NamedTuple

import numpy as np

from .classes import MANTISSA, check_classes, classes_of, exponents_of, numbers_of
from .words import Array, check


class Part(NamedTuple):
    """The words of one record that a span holds."""

    start: int  # as words of the record
    stop: int
    row: int  # words of a whole row
    rows: int  # rows and columns that have a level
    columns: int


def parts_of(shapes: list[list[int]], stops: list[int], start: int, stop: int) -> list[Part]:
    """Return the parts of a span. `stops`: 0, then where each record ends in the line."""
    parts = []
    for i in range(bisect_right(stops, start) - 1, bisect_left(stops, stop)):
        if words := stops[i + 1] - stops[i]:
            many = math.prod(shapes[i][:-1])
            row = words // many if words % many == 0 else words
            first, last = max(start - stops[i], 0), min(stop - stops[i], words)
            rows = (last - 1) // row - first // row + 1
            parts.append(Part(first, last, row, rows, row if len(shapes[i]) >= 2 else 0))
    return parts


def levels_of(parts: list[Part], rows: Array, columns: Array) -> Array:
    """Return the level of each word of a span, but for the exponents."""
    levels = np.zeros(sum(part.stop - part.start for part in parts), "<i4")
    rest = levels
    for part in parts if len(rows) or len(columns) else []:
        places = np.arange(part.start, part.stop)
        if len(rows):
            rest[: len(places)] += rows[places // part.row - part.start // part.row]
        if len(columns) and part.columns:
            rest[: len(places)] += columns[places % part.row]
        rest, rows, columns = rest[len(places) :], rows[part.rows :], columns[part.columns :]
    return levels


def on_grid(numbers: Array, offsets: Array) -> Array:
    """Return 256 v + sign(v) o: below 2^24, so exact as a float32. It is 0 only where v is."""
    v = numbers.astype("<i4")
    result: Array = 256 * v + np.sign(v) * offsets[np.clip(np.abs(v), 1, 3) - 1]
    return result


def read_levels(
    streams: list[Array], words: Array | None, width: int, g: dict[str, Any], parts: list[Part]
) -> Array | None:
    """Return the number of each word of a span; without the base (no words) and with a slope, check the form only."""
    grid = g["values"] == "grid"
    first, rest = streams[: 3 + grid], streams[3 + grid :]
    check([stream.dtype for stream in first] == ["u1", "i1", "i1", "i1"][: 3 + grid], "R2", "not the first streams")
    head, rows, columns = first[:3]
    check(len(head), "R2", "a head without slope")
    check(len(rows) in (0, sum(part.rows for part in parts)), "R2", "not one level a row")
    check(len(columns) in (0, sum(part.columns for part in parts)), "R2", "not one level a column")
    slope, kinds = int(head[0]), head[1:]
    check(not slope or (not grid and g["base"] and g["dtype"] in MANTISSA), "R3", "a slope without exponents")
    check(not grid or len(first[3]) == 3 * len(kinds), "R4", "not three offsets a class")
    size = sum(part.stop - part.start for part in parts)
    stored = check_classes(kinds, rest, size, width)
    if slope and words is None:
        return None
    levels = levels_of(parts, rows, columns)
    if slope and words is not None:
        levels -= slope * exponents_of(words, g["dtype"])
    result: Array = np.zeros(size, "<f4" if grid else f"<i{width}")
    for i, places, numbers in numbers_of(stored, classes_of(levels)):
        result[places] = on_grid(numbers, first[3][3 * i : 3 * i + 3]) if grid else numbers
    return result

"""Factors, whose products are added to the values of a grid, or to references: sections 5 and 6 of format.md."""

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from .classes import MANTISSA, check_classes, classes_of, numbers_of
from .levels import first_of, levels_of, parts_of
from .words import Array, check, ordered, widen

WIDTHS = {"int": 2, "f32": 4, "f16": 2, "bf16": 2}  # bytes of a number


def check_factors(g: dict[str, Any], words: list[int]) -> None:
    """Check what the manifest says of a group's factors. `words`: how many each record has."""
    matrices, ends = g["factors"]["matrices"], [0, *g["factors"]["ends"]]
    predicting = (g["values"], g["positions"]) == ("exact", "levels") and g["base"] and g["dtype"] in MANTISSA
    check((g["values"] == "grid" or predicting) and g["factors"]["values"] in WIDTHS, "U1", "factors that cannot be")
    check(len(matrices) == len(words), "U2", "not one item of matrices a record")
    for (rows, columns, ranks), many in zip(matrices, words, strict=True):
        check(rows * columns * len(ranks) == many > 0, "U2", "matrices that are not the record")
        check(max(ranks) <= 65535, "U2", "a rank above 65535")
    line = sum((rows + columns) * sum(ranks) for rows, columns, ranks in matrices)
    check(line <= 2**62, "F8", "a factor line too large")
    check(max((b - a for a, b in pairwise(ends)), default=0) <= 16777216, "F8", "a span of factors too large")
    check(ends == sorted(set(ends)) and ends[-1] == line, "U2", "the spans do not cut the factor line")


def check_scales(streams: list[Array], exact: bool) -> None:
    dtypes = [stream.dtype for stream in streams]
    check(dtypes == ["<u4", "<u4", "<u2"], "U3", "the chunk of scales is not scales, scales of factors and weights")
    check(not exact or not len(streams[0]), "U3", "scales of a grid beside exact values")


def read_span(
    streams: list[Array], shapes: list[list[int]], stops: list[int], start: int, stop: int, width: int
) -> Array:
    """Return the numbers of a span [start, stop) of the factor line."""
    parts = parts_of(shapes, stops, start, stop)
    slope, kinds, rows, columns = first_of(streams, parts, [])
    check(slope == 0, "U4", "factors with a slope")
    stored = check_classes(kinds, streams[3:], stop - start, width)
    result: Array = np.zeros(stop - start, f"<i{width}")
    for _, places, numbers in numbers_of(stored, classes_of(levels_of(parts, rows, columns))):
        result[places] = numbers
    return result


def factors_of(g: dict[str, Any], chunks: Iterator[list[Array]]) -> Iterator[Array]:
    """Yield each factor of a group, left and right in turn: integers, or floats without rounding as float64."""
    kind, width = g["factors"]["values"], WIDTHS[g["factors"]["values"]]
    sizes = [(rank, [rows, columns]) for rows, columns, ranks in g["factors"]["matrices"] for rank in ranks]
    shapes = [[rank, size] for rank, both in sizes for size in both]
    stops = list(accumulate(map(math.prod, shapes), initial=0))
    spans, held = pairwise([0, *g["factors"]["ends"]]), np.zeros(0, f"<i{width}")
    for shape in shapes:
        size, pieces, many = math.prod(shape), [held], len(held)
        while many < size:
            pieces.append(read_span(next(chunks), shapes, stops, *next(spans), width))
            many += len(pieces[-1])
        held = np.concatenate(pieces) if len(pieces) > 1 else held
        numbers, held = held[:size], held[size:]
        factor = numbers if kind == "int" else widen(ordered(numbers), kind.upper())
        check(np.isfinite(factor).all(), "V3", "a number of a factor that is not finite")
        yield factor.astype("<i8" if kind == "int" else "<f8").reshape(shape)


def check_bound(left: Array, right: Array, weights: Array, scale: float) -> None:
    largest = [np.abs(factor).max(axis=1).tolist() for factor in (left, right)]
    bound = 0  # Python's integers, which do not overflow, or float64
    for weight, one, other in zip(weights.tolist(), *largest, strict=True):
        bound += weight * one * other
    check(left.dtype.kind == "f" or bound <= 2**53, "U5", "a sum that may be more than 2^53")
    check(float(bound) * abs(scale) < 2.0**127, "U5", "a product that may be 2^127 or more")


def product_of(left: Array, right: Array, weights: Array, scale: float) -> Array:
    """Return the float32 that a matrix's factors add to each of its words."""
    if left.dtype.kind == "i":
        total = (left * weights[:, None]).T @ right
    else:
        total = np.zeros((left.shape[1], right.shape[1]))
        for one, other in zip(left, right, strict=True):
            total += np.multiply.outer(one, other)
    result: Array = (total.astype("<f8") * scale).astype("<f4")
    return result


def read_factors(g: dict[str, Any], scaling: list[Array], chunks: Iterator[list[Array]], wanted: bool) -> Array | None:
    """Check the factors of a group, of which `scaling` are the scales and weights.

    If wanted, return what they add to each word of the line. Otherwise the factors of one matrix at a time are held.
    """
    matrices, scales, weights, products = g["factors"]["matrices"], scaling[1].view("<f4"), scaling[2], []
    components = sum(sum(ranks) for *_, ranks in matrices)
    check(len(scales) == len(matrices) and np.isfinite(scales).all(), "U3", "not one finite scale of factors a record")
    known = (0, components) if g["factors"]["values"] == "int" else (0,)
    check(len(weights) in known, "U3", "not one weight a component, or weights of floats")
    factors, used = factors_of(g, chunks), 0
    for (*_, ranks), scale in zip(matrices, scales.tolist(), strict=True):
        for rank in ranks:
            left, right = next(factors), next(factors)
            own = weights[used : used + rank].astype("<i8") if len(weights) else np.ones(rank, "<i8")
            used += rank
            check_bound(left, right, own, scale)
            if wanted:
                products.append(product_of(left, right, own, scale).ravel())
    return np.concatenate(products) if wanted else None

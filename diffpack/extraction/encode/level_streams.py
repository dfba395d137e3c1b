"""From the words of a span to its streams, for records coded in levels: choose levels, then numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode.grid_quantiser import quantise
from diffpack.extraction.encode.pieces import Piece
from diffpack.extraction.scan.scan import Scan
from diffpack.format.chunks import CHUNK_VALUES
from diffpack.format.factors.product import Factors
from diffpack.format.positions import grouped, levels
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.level_costs import (
    STEPS_AN_OCTAVE,
    STILL,
    Lengths,
    Sizes,
    bit_lengths,
    cheapest,
    column_levels,
    row_levels,
    sampled,
    still_columns,
)
from diffpack.format.positions.levels import NONE, Exponents, Plan
from diffpack.format.streams import Numbers
from diffpack.format.values import floats, grid
from diffpack.format.values.exact import EXACT
from diffpack.tensors.dtypes import DType, Positions, Words, exponents
from diffpack.tensors.info import blocks

WORDS = 1 << 20
"""Words a chunk of levels covers at most, where many change (MiniLM pair: 31.5 % at 2^19 to 2^22); decoding it takes
about 24 bytes a word of memory."""
SPARSE_WORDS = 1 << 22
"""The same where few change: classes want many changes (RL-like update: 6.0 bits a change at 2^21, 5.9 at 2^22)."""
_MANY = 1 / 8
"""From this part of changed words on all words are gone through, not the changed ones alone."""
_FAINT = -8
"""Lowest level of a row of grid values: its differences are under a sixteenth of a step, and none is stored."""


@dataclass(frozen=True)
class Part:
    """The words [start, stop) of a scanned tensor, how many of them differ, the step of its grid (or 0), factors."""

    scan: Scan
    start: int
    stop: int
    changed: int
    step: float = 0.0
    factors: Factors | None = None

    def sides(self, start: int, stop: int) -> tuple[Words, Words]:
        """Some words of both sides, reference and tuned."""
        return self.scan.reference.slice(start, stop), self.scan.tuned[start:stop]


class LevelEncoder:
    """Takes whole words, and ends a chunk before it would cover too many."""

    by_words = True

    def full(self, words: int, values: int) -> bool:
        """Classes want many changes: where few words change, a span is longer."""
        return words > (WORDS if values > CHUNK_VALUES else SPARSE_WORDS)

    def streams(self, pieces: Sequence[Piece], start: int) -> list[Numbers]:
        """Choose the levels that are cheapest, and code the words of each class."""
        plan, parts = pieces[0].plan, [_part(own) for own in _by_record(pieces)]
        dtype = plan.scan.pair.info.dtype
        if plan.value_coding.class_offsets:
            return grid_streams(parts, dtype)
        return exact_streams(parts, dtype, plan.conditioned)


def _by_record(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    for _, own in groupby(pieces, lambda piece: piece.line):
        yield list(own)


def _part(pieces: Sequence[Piece]) -> Part:
    """Neighbouring pieces of one record as a part of a span."""
    plan, start, stop = pieces[0].plan, pieces[0].start, pieces[-1].stop
    changed = sum(piece.count for piece in pieces)
    return Part(plan.scan, start, stop, changed, float(plan.scale) * grid.UNITS, plan.factors)


def _geometry(parts: Sequence[Part], dtype: DType) -> Geometry:
    return Geometry.of([(dtype, part.scan.pair.info.shape, part.start, part.stop) for part in parts])


def exact_streams(parts: Sequence[Part], dtype: DType, conditioned: bool) -> list[Numbers]:
    """The streams of a span of steps; with `conditioned` the exponents of the base may count."""
    geometry = _geometry(parts, dtype)
    if sum(part.changed for part in parts) <= geometry.words * _MANY:
        return _sparse_streams(parts, geometry, dtype, conditioned)
    sides = [part.sides(part.start, part.stop) for part in parts]
    reference, tuned = (np.concatenate(each) if len(parts) > 1 else each[0] for each in zip(*sides, strict=True))
    own = exponents(reference, dtype) if conditioned else None
    steps = EXACT.encode(reference, tuned, dtype)
    plans = exact_plans(change_sizes(reference, tuned, steps, dtype), geometry, own)
    plan = cheapest(_telling(plans), geometry, own, bit_lengths(steps[sampled(steps.size)]))
    return levels.encode(plan, plan.split(geometry, own), steps)


def _sparse_streams(parts: Sequence[Part], geometry: Geometry, dtype: DType, conditioned: bool) -> list[Numbers]:
    """The same, gone through by the words that differ alone."""
    places, before, after, own = _differing(parts, dtype, conditioned)
    steps = EXACT.encode(before, after, dtype)
    plans = exact_plans(change_sizes(before, after, steps, dtype), geometry, own, places)
    plan = cheapest(_telling(plans), geometry, own, _sampled_lengths(places, steps, geometry.words))
    return levels.streams(plan, grouped.encode(plan.split(geometry, own), places, steps))


def _differing(
    parts: Sequence[Part], dtype: DType, conditioned: bool
) -> tuple[Positions, Words, Words, Exponents | None]:
    """Where words differ in a span, those words of both sides, and with `conditioned` the exponents of all words.

    Block by block, while words are in cache.
    """
    places, before, after = [np.empty(0, np.int64)], [np.empty(0, dtype.word)], [np.empty(0, dtype.word)]
    own = [exponents(before[0], dtype)] if conditioned else []
    first = 0
    for part in parts:
        for start, stop in blocks(part.stop, part.start):
            reference, tuned = part.sides(start, stop)
            found = part.scan.differing(start, stop)
            found = np.flatnonzero(tuned != reference) if found is None else found
            places.append(found + (first + start - part.start))
            before.append(reference[found])
            after.append(tuned[found])
            if conditioned:
                own.append(exponents(reference, dtype))
        first += part.stop - part.start
    sides = np.concatenate(places), np.concatenate(before), np.concatenate(after)
    return *sides, np.concatenate(own) if conditioned else None


def _sampled_lengths(places: Positions, steps: Numbers, words: int) -> Lengths:
    """The lengths in bits of the steps of the sampled words, most of which are 0."""
    every = sampled(words).step
    lengths = np.zeros(-(-words // every), np.int64)
    nearest = places // every
    some = np.flatnonzero(nearest * every == places)
    lengths[nearest[some]] = bit_lengths(steps[some])
    return lengths


def exact_plans(
    sizes: Sizes, geometry: Geometry, exponents: Exponents | None, places: Positions | None = None
) -> list[Plan]:
    """The levels worth weighing for changes of these sizes; the exponents count only where they are given.

    With `places` the sizes are those of some words (sorted), and no other changes.
    """
    rows, still = row_levels(sizes, geometry, places=places), still_columns(sizes, geometry, places)
    kinds_of_rows = [NONE, rows]
    if (rows == STILL).any() and (rows != STILL).any():
        kinds_of_rows.append(np.where(rows == STILL, rows, 0).astype(np.int8))
    plans = [Plan(own) for own in kinds_of_rows]
    if still.any():
        plans += [Plan(own, still) for own in kinds_of_rows]
    if exponents is not None:
        plans += [Plan(plan.rows, plan.columns, STEPS_AN_OCTAVE) for plan in plans]
    return plans


def _telling(plans: Sequence[Plan]) -> list[Plan]:
    """The plans but those whose rows have one level, which tells no more than none does."""
    return [plan for plan in plans if not plan.rows.size or (plan.rows != plan.rows[0]).any()]


def change_sizes(reference: Words, tuned: Words, steps: Numbers, dtype: DType) -> Sizes:
    """How far each word moves: |tuned - reference|, of dtypes that are no floats |step|; 0 if not finite."""
    if not dtype.arithmetic:
        return np.abs(steps.astype(np.float32))
    with np.errstate(over="ignore"):
        moved = np.abs(floats.difference(reference, tuned, dtype).astype(np.float32, copy=False))
    finite = np.isfinite(moved)
    return moved if finite.all() else np.where(finite, moved, np.float32(0))


def grid_streams(parts: Sequence[Part], dtype: DType) -> list[Numbers]:
    """The streams of a span of grid values: numbers chosen class by class, with their offsets."""
    geometry = _geometry(parts, dtype)
    differences = np.concatenate([_in_steps(part, dtype) for part in parts])
    sizes = np.abs(differences)
    rows, columns = row_levels(sizes, geometry, _FAINT), column_levels(sizes, geometry)
    lengths = bit_lengths(np.rint(sizes[sampled(sizes.size)]))
    plan = cheapest([Plan(), Plan(rows), Plan(rows, columns)], geometry, None, lengths)
    split = plan.split(geometry, None)
    differences = differences[split.order()]
    numbers = np.zeros(differences.size, np.int16)
    offsets = []
    for start, stop in pairwise(split.bounds):
        numbers[start:stop], own = quantise(differences[start:stop])
        offsets.append(own)
    return levels.streams(plan, grouped.encode_ordered(split, numbers), offsets)


def _in_steps(part: Part, dtype: DType) -> npt.NDArray[np.float32]:
    if not part.step:
        return np.zeros(part.stop - part.start, np.float32)
    step = np.float64(part.step)  # which may be beyond float32
    moved = floats.difference(*part.sides(part.start, part.stop), dtype)
    if part.factors is not None:
        moved = moved - part.factors.change(part.start, part.stop)
    return (moved / step).astype(np.float32)

"""From the words of a span to its streams, for records coded in levels: choose levels, then numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode.grid_quantiser import quantise
from diffpack.extraction.encode.pieces import Piece
from diffpack.format.chunks import CHUNK_VALUES
from diffpack.format.factors.product import Factors
from diffpack.format.positions import levels
from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.level_costs import (
    STEPS_AN_OCTAVE,
    STILL,
    Sizes,
    cheapest,
    column_levels,
    row_levels,
    still_columns,
)
from diffpack.format.positions.levels import NONE, Exponents, Plan
from diffpack.format.streams import Numbers
from diffpack.format.values import floats, grid
from diffpack.format.values.exact import EXACT
from diffpack.tensors.dtypes import DType, Words, exponents

WORDS = 1 << 20
"""Words a chunk of levels covers at most, where many change (MiniLM pair: 31.5 % at 2^19 to 2^22); decoding it takes
about 24 bytes a word of memory."""
SPARSE_WORDS = 1 << 22
"""The same where few change: classes want many changes (RL-like update: 6.0 bits a change at 2^21, 5.9 at 2^22)."""
_FAINT = -8
"""Lowest level of a row of grid values: its differences are under a sixteenth of a step, and none is stored."""


@dataclass(frozen=True)
class Part:
    """The words [start, stop) of one record: both sides, the tensor's shape, the step of its grid (or 0), factors."""

    shape: tuple[int, ...]
    start: int
    reference: Words
    tuned: Words
    step: float = 0.0
    factors: Factors | None = None


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
    scan = plan.scan
    reference, tuned = scan.reference.slice(start, stop), scan.tuned[start:stop]
    return Part(scan.pair.info.shape, start, reference, tuned, float(plan.scale) * grid.UNITS, plan.factors)


def _geometry(parts: Sequence[Part], dtype: DType) -> Geometry:
    return Geometry.of([(dtype, part.shape, part.start, part.start + part.tuned.size) for part in parts])


def exact_streams(parts: Sequence[Part], dtype: DType, conditioned: bool) -> list[Numbers]:
    """The streams of a span of steps; with `conditioned` the exponents of the base may count."""
    geometry = _geometry(parts, dtype)
    reference = np.concatenate([part.reference for part in parts])
    tuned = np.concatenate([part.tuned for part in parts])
    steps = EXACT.encode(reference, tuned, dtype)
    own = exponents(reference, dtype) if conditioned else None
    plans = exact_plans(change_sizes(reference, tuned, steps, dtype), geometry, own)
    plan = cheapest(plans, geometry, own, np.abs(steps.astype(np.float32)))
    return levels.encode(plan, plan.members(geometry, own), steps)


def exact_plans(sizes: Sizes, geometry: Geometry, exponents: Exponents | None) -> list[Plan]:
    """The levels worth weighing for changes of these sizes; the exponents count only where they are given."""
    rows, still = row_levels(sizes, geometry), still_columns(sizes, geometry)
    kinds_of_rows = [NONE, rows]
    if (rows == STILL).any() and (rows != STILL).any():
        kinds_of_rows.append(np.where(rows == STILL, rows, 0).astype(np.int8))
    plans = [Plan(own) for own in kinds_of_rows]
    if still.any():
        plans += [Plan(own, still) for own in kinds_of_rows]
    if exponents is not None:
        plans += [Plan(plan.rows, plan.columns, STEPS_AN_OCTAVE) for plan in plans]
    return plans


def change_sizes(reference: Words, tuned: Words, steps: Numbers, dtype: DType) -> Sizes:
    """How far each word moves: |tuned - reference|, of dtypes that are no floats |step|; 0 if not finite."""
    if not dtype.arithmetic:
        return np.abs(steps.astype(np.float32))
    with np.errstate(over="ignore"):
        moved = floats.difference(reference, tuned, dtype).astype(np.float32)
    return np.abs(np.nan_to_num(moved, copy=False, nan=0.0, posinf=0.0, neginf=0.0))


def grid_streams(parts: Sequence[Part], dtype: DType) -> list[Numbers]:
    """The streams of a span of grid values: numbers chosen class by class, with their offsets."""
    geometry = _geometry(parts, dtype)
    differences = np.concatenate([_in_steps(part, dtype) for part in parts])
    sizes = np.abs(differences)
    rows, columns = row_levels(sizes, geometry, _FAINT), column_levels(sizes, geometry)
    rounded: npt.NDArray[np.float32] = np.rint(sizes)
    plan = cheapest([Plan(), Plan(rows), Plan(rows, columns)], geometry, None, rounded)
    members = plan.members(geometry, None)
    numbers = np.zeros(differences.size, np.int16)
    offsets = []
    for positions in members:
        numbers[positions], own = quantise(differences[positions])
        offsets.append(own)
    return levels.encode(plan, members, numbers, offsets)


def _in_steps(part: Part, dtype: DType) -> npt.NDArray[np.float32]:
    if not part.step:
        return np.zeros(part.tuned.size, np.float32)
    step = np.float64(part.step)  # which may be beyond float32
    moved = floats.difference(part.reference, part.tuned, dtype)
    if part.factors is not None:
        moved = moved - part.factors.change(part.start, part.start + part.tuned.size)
    return (moved / step).astype(np.float32)

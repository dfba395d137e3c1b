"""What it would save to say which rows and columns of tensors do not change at all: for a run of tensors at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.geometry import row_width
from diffpack.tensors.dtypes import Positions

TABLE_BYTES = 130
"""What a stream costs beside its numbers: a table of up to 64 bins, and a row in the manifest."""
_STEPS = 4096
"""Steps of a tensor whose sizes are looked at."""
_LENGTHS = 64  # of a gap in bits: positions are under 2^63

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def still_gains(items: Sequence[Scan], least: float) -> Numbers:
    """Estimate for each scanned tensor of a run (`tensors.info.runs`) which part of the bytes that would save.

    Of each the positions and steps are known. A gain below `least` (0 or more) may be told as -1.
    """
    counts = np.array([item.count for item in items])
    saved, apart = _saved(items, counts)
    gains = np.full(len(items), -1.0)
    promising = np.flatnonzero((saved >= 0) & (saved >= least * (apart + counts)) & (counts > 0))  # a step has a bit
    if promising.size:
        bits = _step_bits([items[at] for at in promising.tolist()])
        gains[promising] = saved[promising] / (apart[promising] + counts[promising] * bits)
    return gains


def _saved(items: Sequence[Scan], counts: Counts) -> tuple[Numbers, Numbers]:
    """The bits that are saved by saying it, and those that positions take without."""
    sizes = np.array([item.tuned.size for item in items])
    widths = np.array([max(1, row_width(item.pair.info.dtype, item.pair.info.shape)) for item in items])
    rows = sizes // widths
    tensor = np.repeat(np.arange(len(items)), counts)
    positions = np.concatenate([_positions(item) for item in items])
    moved_rows = _moved_rows(positions, tensor, widths)
    moved_columns = _moved_columns(positions, tensor, widths)
    which_rows, which_columns = _choice(moved_rows, rows), _choice(moved_columns, widths)
    apart = np.minimum(_choice(counts, sizes), gap_bits(positions, tensor, counts))
    told = np.minimum.reduce([
        which_rows + _choice(counts, moved_rows * widths),
        which_columns + _choice(counts, moved_columns * rows),
        which_rows + which_columns + _choice(counts, moved_rows * moved_columns),
    ])  # fmt: skip
    return apart - told - 4 * TABLE_BYTES, apart


def _positions(item: Scan) -> Positions:
    assert item.positions is not None
    return item.positions


def _moved_rows(positions: Positions, tensor: Counts, widths: Counts) -> Counts:
    """How many rows of each tensor change."""
    row = positions // widths[tensor]
    first = np.ones(row.size, np.bool_)
    np.logical_or(row[1:] != row[:-1], tensor[1:] != tensor[:-1], out=first[1:])
    found: Counts = np.bincount(tensor[first], minlength=widths.size)
    return found


def _moved_columns(positions: Positions, tensor: Counts, widths: Counts) -> Counts:
    """How many columns of each tensor change."""
    ends = np.cumsum(widths)
    moved = np.zeros(int(ends[-1]) + 1, np.int64)
    moved[positions % widths[tensor] + (ends - widths)[tensor] + 1] = 1
    before = np.cumsum(moved)
    found: Counts = before[ends] - before[ends - widths]
    return found


def gap_bits(positions: Positions, tensor: Counts, counts: Counts) -> Numbers:
    """Estimate the bits of each tensor's gaps: the entropy of their lengths, and the bits below the first.

    `positions` are those in tensor after tensor, `tensor` says in which, `counts` how many each has.
    """
    gaps = np.diff(positions, prepend=-1) - 1
    first = np.cumsum(counts) - counts
    first = first[counts > 0]
    gaps[first] = positions[first]
    lengths = np.frexp(gaps.astype(np.float64))[1]
    held = np.bincount(tensor * _LENGTHS + lengths, minlength=counts.size * _LENGTHS).reshape(-1, _LENGTHS)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.where(held > 0, held * np.log2(counts[:, None] / held), 0.0).sum(axis=1)
    found: Numbers = entropy + held @ np.maximum(np.arange(_LENGTHS) - 1, 0)
    return found


def _choice(chosen: Counts, of: Counts) -> Numbers:
    """The bits it takes to say which `chosen` of so many there are."""
    share = chosen / np.maximum(of, 1)
    some = (share > 0) & (share < 1)
    share = np.where(some, share, 0.5)
    bits = -of * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    found: Numbers = np.where(some, bits, 0.0)
    return found


def _step_bits(items: Sequence[Scan]) -> Numbers:
    """The mean length in bits of each tensor's steps, by a sample of them."""
    some = [item.steps[:: max(1, item.count // _STEPS)] for item in items if item.steps is not None]
    steps = np.concatenate(some)
    tensor = np.repeat(np.arange(len(items)), [own.size for own in some])
    lengths = np.bincount(tensor, np.frexp(steps.astype(np.float32))[1], minlength=len(items))
    found: Numbers = lengths / np.array([own.size for own in some]) + 1
    return found

"""What it would save to say which rows and columns of tensors do not change at all: for a run of tensors at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffpack.extraction.scan.kept_changes import KeptChanges
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.geometry import row_width
from diffpack.tensors.dtypes import Positions

TABLE_BYTES = 130
"""What a stream costs beside its numbers: a table of up to 64 bins, and a row in the manifest."""
_STEPS = 4096
"""Steps of a tensor whose sizes are looked at."""
_AT_ONCE = 1 << 18
"""Positions that are looked at together: arrays of so many stay in cache, and take little memory."""
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
    seen = _Seen.of(widths)
    for positions, tensor in _some_at_once(items, counts):
        seen.see(positions, tensor)
    moved_rows, moved_columns = seen.rows, seen.columns
    which_rows, which_columns = _choice(moved_rows, rows), _choice(moved_columns, widths)
    apart = np.minimum(_choice(counts, sizes), _bits_of(seen.lengths, counts))
    told = np.minimum.reduce([
        which_rows + _choice(counts, moved_rows * widths),
        which_columns + _choice(counts, moved_columns * rows),
        which_rows + which_columns + _choice(counts, moved_rows * moved_columns),
    ])  # fmt: skip
    return apart - told - 4 * TABLE_BYTES, apart


def _some_at_once(items: Sequence[Scan], counts: Counts) -> Iterator[tuple[Positions, Counts]]:
    """The positions of tensor after tensor, and in which each is: small tensors together, of large ones a part."""
    if counts.sum() <= _AT_ONCE:
        yield np.concatenate([_kept(item).positions() for item in items]), np.repeat(np.arange(len(items)), counts)
        return
    for at, item in enumerate(items):
        kept = _kept(item)
        for start in range(0, kept.size, _AT_ONCE):
            part = kept.positions(start, start + _AT_ONCE)
            yield part, np.full(part.size, at)


@dataclass
class _Seen:
    """What the positions of tensors of some widths come to: rows that change, columns that do, lengths of gaps."""

    widths: Counts
    rows: Counts
    lengths: Counts
    _column: npt.NDArray[np.bool_]
    _last: tuple[int, int] = (-1, -1)  # the tensor and the position that came before

    @classmethod
    def of(cls, widths: Counts) -> _Seen:
        """Nothing seen yet."""
        none = np.zeros((widths.size, _LENGTHS), np.int64)
        return cls(widths, np.zeros(widths.size, np.int64), none, np.zeros(int(widths.sum()), np.bool_))

    @property
    def columns(self) -> Counts:
        """How many columns of each tensor change."""
        before = np.cumsum(np.concatenate([[0], self._column]))
        ends = np.cumsum(self.widths)
        found: Counts = before[ends] - before[ends - self.widths]
        return found

    def see(self, positions: Positions, tensor: Counts) -> None:
        """Take positions, sorted in tensor after tensor, and which tensor each is in."""
        if not positions.size:
            return
        width = self.widths[tensor]
        row = positions // width
        first = np.ones(row.size, np.bool_)
        np.logical_or(row[1:] != row[:-1], tensor[1:] != tensor[:-1], out=first[1:])
        continued = self._last[0] == tensor[0]
        first[0] = not (continued and self._last[1] // width[0] == row[0])
        self.rows += np.bincount(tensor[first], minlength=self.widths.size)
        self._column[positions - row * width + (np.cumsum(self.widths) - self.widths)[tensor]] = True
        self.lengths += _gap_lengths(positions, tensor, self.widths.size, self._last[1] if continued else -1)
        self._last = int(tensor[-1]), int(positions[-1])


def _kept(item: Scan) -> KeptChanges:
    assert item.kept is not None
    return item.kept


def gap_bits(positions: Positions, tensor: Counts, counts: Counts) -> Numbers:
    """Estimate the bits of each tensor's gaps: the entropy of their lengths, and the bits below the first.

    `positions` are those in tensor after tensor, `tensor` says in which, `counts` how many each has.
    """
    return _bits_of(_gap_lengths(positions, tensor, counts.size, -1), counts)


def _gap_lengths(positions: Positions, tensor: Counts, tensors: int, before: int) -> Counts:
    """How many gaps of each length in bits each tensor has; `before` is the position before the first, or -1."""
    gaps = np.diff(positions, prepend=before) - 1
    first = np.flatnonzero(tensor[1:] != tensor[:-1]) + 1
    gaps[first] = positions[first]
    lengths = np.frexp(gaps.astype(np.float64))[1]
    found: Counts = np.bincount(tensor * _LENGTHS + lengths, minlength=tensors * _LENGTHS).reshape(-1, _LENGTHS)
    return found


def _bits_of(lengths: Counts, counts: Counts) -> Numbers:
    """The entropy of each tensor's gap lengths, and the bits below the first of each gap."""
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.where(lengths > 0, lengths * np.log2(counts[:, None] / lengths), 0.0).sum(axis=1)
    found: Numbers = entropy + lengths @ np.maximum(np.arange(_LENGTHS) - 1, 0)
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
    some = [_kept(item).steps[:: max(1, item.count // _STEPS)] for item in items]
    steps = np.concatenate(some)
    tensor = np.repeat(np.arange(len(items)), [own.size for own in some])
    lengths = np.bincount(tensor, np.frexp(steps.astype(np.float32))[1], minlength=len(items))
    found: Numbers = lengths / np.array([own.size for own in some]) + 1
    return found

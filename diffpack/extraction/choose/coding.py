"""Which coding makes a tensor's exact changes smallest, measured on a sample of its rows before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpack.extraction.encode.level_streams import change_sizes, exact_plans
from diffpack.extraction.scan.scan import Scan
from diffpack.format.chunks import encode_chunk
from diffpack.format.positions import PositionCoding, levels
from diffpack.format.positions.every_word import DENSE_ENOUGH, EVERY_WORD
from diffpack.format.positions.gaps import GAPS
from diffpack.format.positions.geometry import Geometry, row_width
from diffpack.format.positions.level_costs import Sizes, bit_lengths, cheapest, cost
from diffpack.format.positions.levels import LEVELS, Exponents, Plan
from diffpack.format.streams import Numbers
from diffpack.format.values.exact import EXACT
from diffpack.tensors.dtypes import DTYPES, Positions, exponents

_ALL = 0.98
"""From this density on gaps are not weighed: they can save nothing, and decode slower."""
_SMALL = 4096
"""Words of a tensor whose coding is not worth measuring: a class has as many."""
_SAMPLE = 1 << 16  # words a measurement looks at
_CONDITIONED_SAMPLE = 1 << 18  # where classes are made by the base, which want many words
_SPARSE_SAMPLE = 1 << 20  # and where few of them change
_GAIN = 0.004
"""What levels must save at least: they take longer to decode than gaps."""
_SMALLEST_GAIN = 0.0
"""The same for who asked for the smallest file."""
_SPARSE_GAIN = 0.02
"""What the base must save at least by an estimate from entropies, which is no better."""
_TABLE_BYTES = 130
"""What a stream costs beside its numbers: a table of up to 64 bins, and a row in the manifest."""
_SPAN = 1 << 20  # words that share such tables
_SPARSE_SPAN = 1 << 22  # the same where few change


def best_positions(item: Scan, profile: str, together: int) -> PositionCoding:
    """The position coding of a scanned tensor: gaps, every word, or levels.

    `together` counts the words of all tensors of its dtypes, which share spans with it.
    """
    conditioned = profile == "smallest"
    plain: PositionCoding = EVERY_WORD if item.density >= DENSE_ENOUGH else GAPS
    may_use_base = conditioned and item.pair.float_reference
    if item.tuned.size < _SMALL or not item.count:
        return LEVELS if may_use_base and item.count else plain  # with the base it shares a chunk with its like
    needed = _SMALLEST_GAIN if conditioned else _GAIN
    if item.positions is not None:
        if _still_gain(item, item.positions) >= needed:
            return LEVELS
        return LEVELS if may_use_base and _sparse_gain(item, together) >= _SPARSE_GAIN else GAPS
    measured = _measured(item, profile, may_use_base, together)
    plain = min((EVERY_WORD, GAPS), key=lambda coding: measured.get(coding, np.inf))
    return LEVELS if measured[LEVELS] <= (1 - needed) * measured[plain] else plain


@dataclass(frozen=True)
class _Sample:
    """Rows of a tensor, the steps of their words, and the levels worth weighing for them."""

    steps: Numbers
    geometry: Geometry
    exponents: Exponents | None
    plans: list[Plan]

    @property
    def sizes(self) -> Sizes:
        """|step| of each word."""
        return np.abs(self.steps.astype(np.float32))


def _sample(item: Scan, words: int, may_use_base: bool) -> _Sample:
    dtype = item.pair.info.dtype
    positions, geometry = sampled_rows(item, words)
    reference, tuned = item.reference.at(positions), item.tuned[positions]
    steps = EXACT.encode(reference, tuned, dtype)
    own = exponents(reference, dtype) if may_use_base else None
    plans = exact_plans(change_sizes(reference, tuned, steps, dtype), geometry, own)
    return _Sample(steps, geometry, own, plans)


def _sparse_gain(item: Scan, together: int) -> float:
    """Estimate which part of the bytes the base would save, where few words change.

    By entropies: a sample's classes hold too few changes to be measured.
    """
    sample = _sample(item, _SPARSE_SAMPLE, may_use_base=True)
    share = min(1.0, sample.steps.size / min(together, _SPARSE_SPAN))
    sizes = sample.sizes
    lengths = bit_lengths(sizes)
    bits = [cost(plan, sample.geometry, sample.exponents, lengths, share) for plan in sample.plans]
    moved = np.flatnonzero(sizes)
    if not moved.size:
        return 0.0
    alone = Geometry.of([(DTYPES["F32"], moved.shape, 0, moved.size)])
    plain = min(bits[0], _gap_bits(moved) + cost(Plan(), alone, None, bit_lengths(sizes[moved]), share))
    return (plain - min(bits)) / (plain + float(np.frexp(sizes)[1].sum()))


def _still_gain(item: Scan, positions: Positions) -> float:
    """Estimate which part of the bytes it saves to say which rows, columns, or both do not change at all."""
    words, changed = item.tuned.size, positions.size
    width = row_width(item.pair.info.dtype, item.pair.info.shape)
    rows = words // width
    moved_rows = int(np.count_nonzero(np.diff(positions // width, prepend=-1)))
    moved_columns = int(np.count_nonzero(np.bincount(positions % width)))
    which_rows, which_columns = _choice(moved_rows, rows), _choice(moved_columns, width)
    apart = min(_choice(changed, words), _gap_bits(positions))
    told = min(
        which_rows + _choice(changed, moved_rows * width),
        which_columns + _choice(changed, moved_columns * rows),
        which_rows + which_columns + _choice(changed, moved_rows * moved_columns),
    )
    some = positions[:: max(1, changed // _SMALL)]
    steps = EXACT.encode(item.reference.at(some), item.tuned[some], item.pair.info.dtype)
    step_bits = float(np.frexp(steps.astype(np.float32))[1].mean()) + 1
    return (apart - told - 4 * _TABLE_BYTES) / (apart + changed * step_bits)


def _gap_bits(positions: Positions) -> float:
    """Estimate the bits of gaps: the entropy of their lengths, and the bits below the first."""
    lengths = np.frexp(np.diff(positions, prepend=-1) - 1.0)[1]
    counts = np.bincount(lengths)
    counts = counts[counts > 0]
    entropy = (counts * np.log2(positions.size / counts)).sum()
    return float(entropy + np.maximum(lengths - 1, 0).sum())


def _choice(chosen: int, of: int) -> float:
    """The bits it takes to say which `chosen` of so many there are."""
    share = chosen / of
    if share in (0.0, 1.0):
        return 0.0
    return float(-of * (share * np.log2(share) + (1 - share) * np.log2(1 - share)))


def _measured(item: Scan, profile: str, may_use_base: bool, together: int) -> dict[PositionCoding, float]:
    """Code a sample of a tensor each way; give the bytes that would take as a part of longer spans."""
    sample = _sample(item, _CONDITIONED_SAMPLE if may_use_base else _SAMPLE, may_use_base)
    steps, geometry, exponents = sample.steps, sample.geometry, sample.exponents
    plan = cheapest(sample.plans[1:], geometry, exponents, sample.sizes)
    ways: dict[PositionCoding, list[Numbers]] = {
        LEVELS: levels.encode(plan, plan.members(geometry, exponents), steps),
        EVERY_WORD: [steps],
    }
    if item.density < _ALL:
        moved = np.flatnonzero(steps)
        ways[GAPS] = GAPS.encode(moved, steps[moved], 0, steps.size)
    spared = 1 - min(1.0, steps.size / min(together, _SPAN))
    return {coding: _bytes(streams, profile, spared) for coding, streams in ways.items()}


def _bytes(streams: list[Numbers], profile: str, spared: float) -> float:
    """Code streams and count their bytes, less the part of their tables that others will pay."""
    chunk = encode_chunk(streams, profile)
    tables = sum(min(_TABLE_BYTES, stream.nbytes / 32) for stream in chunk.streams if stream.codec != "raw")
    return len(chunk.data) - spared * tables


def sampled_rows(item: Scan, words: int = _SAMPLE) -> tuple[Positions, Geometry]:
    """The positions of a sample of whole rows, evenly spread, and the geometry of a tensor of just these."""
    dtype, size = item.pair.info.dtype, item.tuned.size
    width = min(row_width(dtype, item.pair.info.shape), size)
    rows = size // width
    if rows == 1:
        count = min(size, words)
        return np.linspace(0, size - 1, count).astype(np.int64), Geometry.of([(dtype, (count,), 0, count)])
    wanted = min(rows, max(1, words // width))
    chosen = np.unique(np.linspace(0, rows - 1, wanted).astype(np.int64))
    positions = (chosen[:, None] * width + np.arange(width)).reshape(-1)
    shape = (chosen.size, width) if chosen.size > 1 else (width,)
    return positions, Geometry.of([(dtype, shape, 0, positions.size)])


def sampled_bytes(item: Scan, profile: str, together: int) -> float:
    """The bytes a tensor with a float base would take in the coding that makes it smallest, judged by a sample."""
    part = sampled_rows(item, _CONDITIONED_SAMPLE)[0].size / item.tuned.size
    return min(_measured(item, profile, True, together).values()) / part

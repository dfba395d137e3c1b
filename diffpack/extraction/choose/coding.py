"""Which coding makes exact changes smallest, measured on a sample of their words before anything is written.

Small tensors are measured together with their like: of each alone a sample tells too little, and takes too long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from diffpack.checkpoints.joined_words import joined
from diffpack.extraction.choose.still import TABLE_BYTES, gap_bits, still_gains
from diffpack.extraction.encode.level_streams import change_sizes, exact_plans
from diffpack.extraction.scan.scan import Scan
from diffpack.format.chunks import encode_chunk
from diffpack.format.features import CONDITIONED
from diffpack.format.positions import PositionCoding, levels
from diffpack.format.positions.every_word import DENSE_ENOUGH, EVERY_WORD
from diffpack.format.positions.gaps import GAPS
from diffpack.format.positions.geometry import Geometry, row_width
from diffpack.format.positions.level_costs import bit_lengths, cheapest, costs, sampled
from diffpack.format.positions.levels import LEVELS, Exponents, Plan
from diffpack.format.streams import Numbers
from diffpack.format.values.exact import EXACT
from diffpack.support.parallel import run_all
from diffpack.tensors.dtypes import DTYPES, Positions, Words, exponents
from diffpack.tensors.info import runs

_ALL = 0.98
"""From this density on gaps are not weighed: they can save nothing, and decode slower."""
_SMALL = 4096
"""Words of a tensor whose coding is not worth measuring without the base."""
_SAMPLE = 1 << 16
"""Words a measurement looks at; a tensor of fewer is measured together with its like."""
_CONDITIONED_SAMPLE = 1 << 18  # where classes are made by the base, which want many words
_SPARSE_SAMPLE = 1 << 20  # and where few of them change
_GAIN = 0.004
"""What levels must save at least: they take longer to decode than gaps."""
_SMALLEST_GAIN = 0.0
"""The same for who asked for the smallest file."""
_SPARSE_GAIN = 0.02
"""What the base must save at least by an estimate from entropies, which is no better."""
_SPAN = 1 << 20  # words that share tables of streams
_SPARSE_SPAN = 1 << 22  # the same where few change

_Found = dict[str, PositionCoding]


def best_positions(scans: Sequence[Scan], profile: str, threads: int | None) -> list[PositionCoding]:
    """The position coding of each scanned tensor: gaps, every word, or levels."""
    found: _Found = {item.pair.name: _plain(item) for item in scans}
    together = words_together(scans)
    weighed = [item for item in scans if item.count and (item.tuned.size >= _SMALL or _may_use_base(item, profile))]
    sparse = [item for item in weighed if item.kept is not None]
    jobs: list[partial[_Found]] = [
        partial(_in_still_rows, sparse[run], profile) for run in runs((item.pair.info for item in sparse), _SPARSE_SPAN)
    ]
    for told in run_all(jobs, threads):
        found |= told
    if profile == CONDITIONED:
        left = [item for item in sparse if found[item.pair.name] is not LEVELS and item.pair.float_reference]
        jobs = [partial(_against_base, pool, together) for pool in _pools(left, _SPARSE_SPAN)]
    else:
        jobs = []
    dense = [item for item in weighed if item.kept is None]
    jobs += [partial(_by_measure, pool, profile, together) for pool in _pools(dense, _SPAN)]
    for told in run_all(jobs, threads):
        found |= told
    return [found[item.pair.name] for item in scans]


def _plain(item: Scan) -> PositionCoding:
    """The coding of a tensor of which nothing is measured."""
    return EVERY_WORD if item.density >= DENSE_ENOUGH else GAPS


def _may_use_base(item: Scan, profile: str) -> bool:
    return profile == CONDITIONED and item.pair.float_reference


def _needed(profile: str) -> float:
    return _SMALLEST_GAIN if profile == CONDITIONED else _GAIN


def dtypes_of(item: Scan) -> tuple[str, str]:
    """The dtypes of the base tensor ("" for none) and the tensor: those of the same may share spans."""
    pair = item.pair
    return pair.base.dtype.name if pair.base else "", pair.info.dtype.name


def words_together(scans: Sequence[Scan]) -> Mapping[tuple[str, str], int]:
    """How many words the tensors of the same dtypes have."""
    together: Counter[tuple[str, str]] = Counter()
    for item in scans:
        together[dtypes_of(item)] += item.tuned.size
    return together


def _pools(items: Sequence[Scan], most: int) -> Iterator[list[Scan]]:
    """Tensors to measure together: large ones alone, small ones of like dtypes and density, `most` words at most."""
    like: dict[tuple[object, ...], list[Scan]] = {}
    words: Counter[tuple[object, ...]] = Counter()
    for item in items:
        if item.tuned.size >= _SAMPLE:
            yield [item]
            continue
        key = *dtypes_of(item), item.pair.float_reference, int(np.frexp(item.density)[1])
        if words[key] + item.tuned.size > most:
            yield like.pop(key)
            words[key] = 0
        like.setdefault(key, []).append(item)
        words[key] += item.tuned.size
    yield from like.values()


def _in_still_rows(run: Sequence[Scan], profile: str) -> _Found:
    """Levels for those of a run of tensors in which rows or columns that do not change are worth telling."""
    needed = _needed(profile)
    gains = still_gains(run, needed)
    return {item.pair.name: LEVELS if gain >= needed else GAPS for item, gain in zip(run, gains.tolist(), strict=True)}


def _against_base(pool: Sequence[Scan], together: Mapping[tuple[str, str], int]) -> _Found:
    """Levels for tensors in which few words change, if the base tells which."""
    gain = _sparse_gain(pool, together[dtypes_of(pool[0])])
    return dict.fromkeys((item.pair.name for item in pool), LEVELS if gain >= _SPARSE_GAIN else GAPS)


def _by_measure(pool: Sequence[Scan], profile: str, together: Mapping[tuple[str, str], int]) -> _Found:
    """What is smallest for tensors in which many words change."""
    measured = _measured(pool, profile, together[dtypes_of(pool[0])])
    plain = min((EVERY_WORD, GAPS), key=lambda coding: measured.get(coding, np.inf))
    better = measured[LEVELS] <= (1 - _needed(profile)) * measured[plain]
    return dict.fromkeys((item.pair.name for item in pool), LEVELS if better else plain)


@dataclass(frozen=True)
class _Sample:
    """Rows of a tensor, the steps of their words, and the levels worth weighing for them."""

    steps: Numbers
    geometry: Geometry
    exponents: Exponents | None
    plans: list[Plan]


def _sample(pool: Sequence[Scan], words: int, may_use_base: bool) -> _Sample:
    dtype = pool[0].pair.info.dtype
    reference, tuned, geometry = _sampled(pool, words)
    steps = EXACT.encode(reference, tuned, dtype)
    own = exponents(reference, dtype) if may_use_base else None
    plans = exact_plans(change_sizes(reference, tuned, steps, dtype), geometry, own)
    return _Sample(steps, geometry, own, plans)


def _sampled(pool: Sequence[Scan], words: int) -> tuple[Words, Words, Geometry]:
    """Both sides of a sample, and where its rows lie: rows of a tensor, or several whole tensors, evenly spread."""
    total = sum(item.tuned.size for item in pool)
    chosen = pool[:: max(1, -(-total // words))]
    if len(chosen) == 1:
        positions, geometry = sampled_rows(chosen[0], words)
        return chosen[0].reference.at(positions), chosen[0].tuned[positions], geometry
    reference, tuned = joined([item.reference.source for item in chosen]), joined([item.tuned for item in chosen])
    infos = [item.pair.info for item in chosen]
    geometry = Geometry.of([(info.dtype, info.shape, 0, info.words) for info in infos])
    return reference[0 : tuned.size], tuned[0 : tuned.size], geometry


def _sparse_gain(pool: Sequence[Scan], together: int) -> float:
    """Estimate which part of the bytes the base would save, where few words change.

    By entropies: a sample's classes hold too few changes to be measured.
    """
    sample = _sample(pool, _SPARSE_SAMPLE, may_use_base=True)
    share = min(1.0, sample.steps.size / min(together, _SPARSE_SPAN))
    steps = sample.steps
    lengths = bit_lengths(steps[sampled(steps.size)])
    bits = costs(sample.plans, sample.geometry, sample.exponents, lengths, share)
    moved = np.flatnonzero(steps != 0)
    if not moved.size:
        return 0.0
    alone = Geometry.of([(DTYPES["F32"], moved.shape, 0, moved.size)])
    of_gaps = gap_bits(moved, np.zeros_like(moved), np.array([moved.size]))[0]
    alone_lengths = bit_lengths(steps[moved][sampled(moved.size)])
    plain = min(bits[0], of_gaps + costs([Plan()], alone, None, alone_lengths, share)[0])
    return float((plain - min(bits)) / (plain + float(bit_lengths(steps[moved]).sum())))


def _measured(pool: Sequence[Scan], profile: str, together: int) -> dict[PositionCoding, float]:
    """Code a sample each way; give the bytes that would take as a part of longer spans."""
    may_use_base = _may_use_base(pool[0], profile)
    sample = _sample(pool, _CONDITIONED_SAMPLE if may_use_base else _SAMPLE, may_use_base)
    return _coded(sample, max(item.density for item in pool), profile, together)


def _coded(sample: _Sample, density: float, profile: str, together: int) -> dict[PositionCoding, float]:
    steps, geometry, exponents = sample.steps, sample.geometry, sample.exponents
    plan = cheapest(sample.plans[1:], geometry, exponents, bit_lengths(steps[sampled(steps.size)]))
    ways: dict[PositionCoding, list[Numbers]] = {
        LEVELS: levels.encode(plan, plan.split(geometry, exponents), steps),
        EVERY_WORD: [steps],
    }
    if density < _ALL:
        moved = np.flatnonzero(steps)
        ways[GAPS] = GAPS.encode(moved, steps[moved], 0, steps.size)
    spared = 1 - min(1.0, steps.size / min(together, _SPAN))
    return {coding: _bytes(streams, profile, spared) for coding, streams in ways.items()}


def _bytes(streams: list[Numbers], profile: str, spared: float) -> float:
    """Code streams and count their bytes, less the part of their tables that others will pay."""
    chunk = encode_chunk(streams, profile)
    tables = sum(min(TABLE_BYTES, stream.nbytes / 32) for stream in chunk.streams if stream.codec != "raw")
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
    sample = _sample([item], _CONDITIONED_SAMPLE, may_use_base=True)
    part = sample.steps.size / item.tuned.size
    return min(_coded(sample, item.density, profile, together).values()) / part

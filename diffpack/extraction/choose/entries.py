"""Which entries change: all that differ, those above a threshold, the k largest, or those that a rule tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from diffpack.extraction.options import Selection
from diffpack.extraction.scan.scan import Scan
from diffpack.format.positions.rule_words import Rule, at_random, by_weight
from diffpack.format.values.floats import difference
from diffpack.support.parallel import run_in_order
from diffpack.tensors.dtypes import Positions

_SAMPLE_A_BLOCK = 256  # magnitudes sampled from each block for the first guess of the threshold


def select(scans: Sequence[Scan], selection: Selection, entries: int, threads: int | None = None) -> list[Positions]:
    """The chosen positions of each scanned tensor (arithmetic dtypes, finite differences).

    A density is a fraction of `entries`. The magnitude is |tuned - reference| in float32; equal magnitudes are
    taken in order of tensor and position.
    """
    if selection.threshold is not None:
        with np.errstate(over="ignore"):  # infinite: nothing is chosen
            limit = np.float32(selection.threshold)
        return [_above(item, limit)[0] for item in scans]
    k = selection.top_k
    if k is None:
        k = round(float(selection.density or 0.0) * entries)
    return _largest(scans, k, threads)


def positions_by_rule(item: Scan, rule: Rule, count: int) -> Positions:
    """The positions of a scanned tensor that a rule tells."""
    size = item.tuned.size
    if rule.by_weight:
        return by_weight(rule, item.reference.slice(0, size), count)
    return at_random(rule, item.pair.name, size, count)


def block_magnitudes(item: Scan, start: int, stop: int) -> npt.NDArray[np.float32]:
    """|tuned - reference| of a block as float32."""
    delta = difference(item.reference.slice(start, stop), item.tuned[start:stop], item.pair.info.dtype)
    with np.errstate(over="ignore"):
        magnitude: npt.NDArray[np.float32] = np.abs(delta).astype(np.float32)
    return magnitude


def _above(item: Scan, bound: np.float32) -> tuple[Positions, npt.NDArray[np.float32]]:
    """Positions whose magnitude is `bound` or more (and not zero), and those magnitudes."""
    places, sizes = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start, stop in item.changed_blocks():
        magnitude = block_magnitudes(item, start, stop)
        chosen = np.flatnonzero((magnitude >= bound) & (magnitude > 0))
        places.append(chosen + start)
        sizes.append(magnitude[chosen])
    return np.concatenate(places), np.concatenate(sizes)


def _largest(scans: Sequence[Scan], k: int, threads: int | None) -> list[Positions]:
    """Find the k largest: a sampled lower bound, one pass that gathers candidates, an exact choice among them."""
    differing = sum(item.count for item in scans)
    bound = _sampled_bound(scans, k, differing)
    while True:
        jobs = [partial(_above, item, bound) for item in scans]
        gathered = list(run_in_order(jobs, threads))
        sizes = np.concatenate([size for _, size in gathered]) if gathered else np.empty(0, np.float32)
        if sizes.size >= k or bound == 0:
            break
        bound = np.float32(0) if bound < np.finfo(np.float32).tiny else bound / np.float32(4)
    taken = _take(sizes, min(k, sizes.size))
    cuts = np.cumsum([size.size for _, size in gathered])[:-1]
    parts: Iterator[npt.NDArray[np.bool_]] = iter(np.split(taken, cuts)) if gathered else iter(())
    return [positions[mask] for (positions, _), mask in zip(gathered, parts, strict=True)]


def _take(sizes: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.bool_]:
    """Mark the k largest; of equal ones the first."""
    taken = np.zeros(sizes.size, np.bool_)
    if k == 0:
        return taken
    limit = np.partition(sizes, sizes.size - k)[sizes.size - k]
    taken[:] = sizes > limit
    ties = np.flatnonzero(sizes == limit)
    taken[ties[: k - int(taken.sum())]] = True
    return taken


def _sampled_bound(scans: Sequence[Scan], k: int, differing: int) -> np.float32:
    """Guess a magnitude that rather more than k entries reach; 0 if sampling would not help."""
    if k >= differing // 2:
        return np.float32(0)
    samples = []
    for item in scans:
        for start, stop in item.changed_blocks():
            stride = max(1, (stop - start) // _SAMPLE_A_BLOCK)
            positions = np.arange(start, stop, stride)
            words = item.tuned[positions]
            with np.errstate(over="ignore"):
                delta = difference(item.reference.at(positions), words, item.pair.info.dtype)
                samples.append((np.abs(delta).astype(np.float32), np.full(positions.size, stride)))
    sizes = np.concatenate([size for size, _ in samples])
    weights = np.concatenate([weight for _, weight in samples])
    order = np.argsort(-sizes)
    reached = np.cumsum(weights[order])
    index = min(int(np.searchsorted(reached, 1.5 * k)) + 8, sizes.size - 1)
    return np.float32(sizes[order[index]])

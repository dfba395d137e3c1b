"""The scales of int8 values, fitted to samples of the differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode.pieces import pieces_of, sides_of
from diffpack.extraction.encode.record_plan import RecordPlan
from diffpack.format.values import floats
from diffpack.format.values.int8 import INT8, SIGN, Multiples

_SAMPLE = 1 << 16  # differences a tensor's scale is fitted to


def fit_scales(plans: Sequence[RecordPlan], value_coding: Multiples) -> list[RecordPlan]:
    """Give records of multiples their scales: powers of two apart, anchored at the best scale of all differences.

    Coarser multiples than int8's have few numbers to share, and take for each record the scale that is best for it.
    """
    samples = [_sample(plan) for plan in plans]
    if value_coding is SIGN:
        scales = [np.float32(_mean_magnitude(plan)) for plan in plans]
    elif value_coding is not INT8:
        scales = [np.float32(value_coding.best_scale(sample)) for sample in samples]
    else:
        together = np.concatenate([np.empty(0, np.float32), *samples])
        anchor = value_coding.best_scale(together[:: max(1, together.size // (4 * _SAMPLE))])
        scales = [value_coding.snap(anchor, sample) for sample in samples]
    return [replace(plan, scale=scale) for plan, scale in zip(plans, scales, strict=True)]


def _mean_magnitude(plan: RecordPlan) -> float:
    """The mean |difference| of the entries a record stores, of those that differ: the best scale of signs."""
    total, count = 0.0, 0
    for _, reference, tuned in sides_of(list(pieces_of([plan]))):
        magnitude = np.abs(floats.difference(reference, tuned, plan.scan.pair.info.dtype))
        total += float(magnitude.sum(dtype=np.float64))
        count += int(np.count_nonzero(magnitude))
    return total / count if count else 0.0


def _sample(plan: RecordPlan) -> npt.NDArray[Any]:
    """The differences of up to `_SAMPLE` entries, evenly spread over those stored."""
    scan = plan.scan
    positions = plan.chosen
    if positions is None:
        positions = np.arange(scan.tuned.size, dtype=np.int64) if scan.kept is None else scan.kept.positions()
    positions = positions[:: max(1, positions.size // _SAMPLE)]
    return floats.difference(scan.reference.at(positions), scan.tuned[positions], scan.pair.info.dtype)

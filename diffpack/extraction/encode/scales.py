"""The scales of int8 values, fitted to samples of the differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.extraction.encode.record import Record
from diffpack.extraction.encode.spans import _pieces, _sides
from diffpack.format.values import floats, int8

_SAMPLE = 1 << 16  # differences a tensor's int8 scale is fitted to


def fit_scales(records: Sequence[Record]) -> list[Record]:
    """Give int8 records their scales: powers of two apart, anchored at the best scale of all differences.

    Coarser quantisers have few multiples to share, and take for each record the scale that is best for it.
    """
    samples = [_sample(record) for record in records]
    if records and records[0].quantiser != "int8":
        scales = [
            _mean_magnitude(record) if record.quantiser == "sign" else int8.best_scale(sample, record.quantiser)
            for record, sample in zip(records, samples, strict=True)
        ]
        return [replace(record, scale=np.float32(scale)) for record, scale in zip(records, scales, strict=True)]
    together = np.concatenate(samples) if samples else np.empty(0, np.float32)
    anchor = int8.best_scale(together[:: max(1, together.size // (4 * _SAMPLE))])
    return [replace(record, scale=int8.snap(anchor, sample)) for record, sample in zip(records, samples, strict=True)]


def _mean_magnitude(record: Record) -> float:
    """Give the mean |difference| of the entries a record stores, of those that differ: the best scale of signs."""
    scan, total, count = record.scan, 0.0, 0
    for piece in _pieces([record]):
        reference, tuned = _sides(scan, piece.start, piece.stop, piece.positions)
        magnitude = np.abs(floats.difference(reference, tuned, scan.pair.info.dtype))
        total += float(magnitude.sum(dtype=np.float64))
        count += int(np.count_nonzero(magnitude))
    return total / count if count else 0.0


def _sample(record: Record) -> npt.NDArray[Any]:
    """Give the differences of up to `_SAMPLE` entries, evenly spread over those stored."""
    scan = record.scan
    positions = record.chosen if record.chosen is not None else scan.positions
    if positions is None:
        positions = np.arange(scan.tuned.size, dtype=np.int64)
    positions = positions[:: max(1, positions.size // _SAMPLE)]
    return floats.difference(scan.reference.at(positions), scan.tuned[positions], scan.pair.info.dtype)

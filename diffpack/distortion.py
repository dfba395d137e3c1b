"""How far a lossy result is from the tuned checkpoint: relative L2 error, overall and of each record.

The error is that of the result itself, rounded as apply rounds it: |result - tuned| / |tuned - reference|.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diffpack.codecs.values import floats
from diffpack.dtypes import DType, Words
from diffpack.scan import Scan

MILLIONTHS = 10**6
"""What the file counts relative errors in."""


class Distortion:
    """Sums squared errors while a result is produced: `see` is what `Result.run` writes to.

    `moved` is what `energies` gives for the scans.
    """

    def __init__(self, scans: Iterable[Scan], moved: Mapping[str, float]) -> None:
        self._scans = {item.pair.name: item for item in scans if item.pair.name in moved}
        self._moved = moved
        self._missed = dict.fromkeys(self._scans, 0.0)

    def see(self, name: str, offset: int, words: Words) -> None:
        """Take the words of a result tensor from a byte offset on."""
        item = self._scans.get(name)
        if item is not None:
            start = offset // words.itemsize
            tuned = item.tuned[start : start + words.size]
            self._missed[name] += _squared(words, tuned, item.pair.info.dtype)

    def of(self, names: Sequence[str]) -> tuple[int, ...]:
        """Give the relative error of records, in millionths; 0 for those that are stored exactly."""
        return tuple(_relative(self._missed.get(name, 0.0), self._moved.get(name, 0.0)) for name in names)

    @property
    def overall(self) -> int:
        """The relative error of all tensors together, in millionths."""
        return _relative(sum(self._missed.values()), sum(self._moved.values()))


def energies(scans: Iterable[Scan]) -> dict[str, float]:
    """Give |tuned - reference|^2 of each scanned tensor whose error is told: floats that both sides have."""
    return {item.pair.name: _energy(item) for item in scans if item.pair.both_float and not item.pair.resized}


def _energy(item: Scan) -> float:
    dtype, total = item.pair.info.dtype, 0.0
    for start, stop in item.changed_blocks():
        total += _squared(item.reference.slice(start, stop), item.tuned[start:stop], dtype)
    return total


def _squared(one: Words, other: Words, dtype: DType) -> float:
    difference: npt.NDArray[np.float64] = floats.difference(one, other, dtype).astype(np.float64)
    if not np.isfinite(difference).all():
        difference = np.nan_to_num(difference, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return float(np.dot(difference, difference))


def _relative(missed: float, moved: float) -> int:
    return round(MILLIONTHS * float(np.sqrt(missed / moved))) if moved else 0

"""What the sums of an operation miss: stored values are rounded, and so is each sum to the dtype of its tensor."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from diffpack.algebra.delta import Values
from diffpack.diff.entries import Entry
from diffpack.format.values import floats
from diffpack.format.values.floats import Added
from diffpack.tensors.dtypes import Positions, to_float
from diffpack.tensors.info import BLOCK_WORDS
from diffpack.tensors.reference import Reference

Wanted = tuple[int, Positions | None, Values]
"""Differences that were to be added: the first word, the positions (None: every word from there on), the values."""


class Missed:
    """Norms (L2) by tensor: `missed` of result - (reference + wanted), `moved` of what was wanted. Thread-safe."""

    def __init__(self) -> None:
        self.missed: dict[str, float] = {}
        self.moved: dict[str, float] = {}
        self._lock = threading.Lock()

    def measure(self, entry: Entry, wanted: Iterable[Wanted], reference: Reference) -> None:
        """Compare a record of float values with the differences that it stands for, one item for each of its parts."""
        assert isinstance(entry.value_coding, Added)
        dtype, missed, moved = entry.info.dtype, 0.0, 0.0
        for part, (start, positions, values) in zip(entry.parts, wanted, strict=True):
            stored = np.zeros(values.size, np.float32)
            kept = entry.value_coding.differences(part.numbers, entry.scale)
            if part.positions is None or positions is None:
                stored[:] = kept
            else:
                stored[np.searchsorted(positions, part.positions)] = kept
            for first in range(0, values.size, BLOCK_WORDS):
                block = slice(first, min(first + BLOCK_WORDS, values.size))
                before = (
                    reference.slice(start + block.start, start + block.stop)
                    if positions is None
                    else reference.at(positions[block])
                )
                after = to_float(floats.add(before, stored[block], dtype), dtype).astype(np.float64)
                ideal = to_float(before, dtype).astype(np.float64) + values[block]
                with np.errstate(invalid="ignore"):
                    off = after - ideal
                missed, moved = np.hypot(missed, _norm(off)), np.hypot(moved, _norm(values[block]))
        with self._lock:
            self.missed[entry.name], self.moved[entry.name] = float(missed), float(moved)

    def nothing(self, name: str, values: Values) -> None:
        """Take the differences of a tensor that is stored exactly: they count among what moved."""
        with self._lock:
            self.moved[name] = _norm(values)


def _norm(values: npt.NDArray[np.floating]) -> float:
    """The L2 norm; what is not finite counts as nothing, as in the errors of extract."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide = values.astype(np.float64)
    wide = np.where(np.isfinite(wide), wide, 0.0)
    largest = float(np.abs(wide).max(initial=0.0))
    return largest * float(np.linalg.norm(wide / largest)) if largest else 0.0

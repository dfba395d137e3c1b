"""Sums that an operation makes, watched for those beyond the last finite number of their dtype: told, or clipped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from diffpack.diff.entries import Entry
from diffpack.diff.group_decoder import Changes
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError
from diffpack.format.streams import Numbers
from diffpack.format.values import floats
from diffpack.format.values.floats import Added
from diffpack.result.overflow import largest_finite, made_infinite, not_finite
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import DType, Words, from_float, to_float
from diffpack.tensors.info import BLOCK_WORDS, TensorInfo, blocks
from diffpack.tensors.reference import Reference

OVERFLOW, NOT_CHECKED = "overflow", "not checked without the base"
"""What the recipe of a diff says whose sums were made without the base."""


@dataclass(frozen=True)
class Overflow:
    """The sums of one tensor that its dtype cannot hold: how many entries, the largest magnitude among them."""

    dtype: DType
    entries: int
    largest: float

    def __str__(self) -> str:
        end = largest_finite(self.dtype)
        return f"{self.entries:,} {self.dtype.name} entries, up to {self.largest:g} where {end:g} is the last"


class Sums:
    """Watches the sums one operation makes; with `clip` they end at the largest finite number. Thread-safe."""

    def __init__(self, clip: bool) -> None:
        self.clip = clip
        self.found: dict[str, Overflow] = {}
        self._lock = threading.Lock()

    def entry(self, entry: Entry, reference: Reference) -> Entry:
        """A record of float values that its reference can take; exact ones, which are no sums, as they are.

        Without `clip` the record stays as it is, and `refuse` will speak of it.
        """
        coding = entry.value_coding
        if not isinstance(coding, Added):
            return entry
        parts = tuple(self._part(part, entry, coding, reference) for part in entry.parts)
        return replace(entry, parts=parts) if self.clip else entry

    def _part(self, part: Changes, entry: Entry, coding: Added, reference: Reference) -> Changes:
        dtype, pieces = entry.info.dtype, []
        for positions, numbers in _pieces(part):
            before = _before(reference, positions)
            values = coding.differences(numbers, entry.scale)
            over = made_infinite(before, floats.add(before, values, dtype), dtype)
            if over.any():
                self._remember(entry.name, dtype, _wide(before[over], dtype) + values[over])
                if self.clip:
                    numbers = numbers.copy()
                    numbers[over] = _clipped(before[over], numbers[over], coding, entry.scale, dtype)
            pieces.append(numbers)
        return replace(part, numbers=np.concatenate(pieces)) if self.clip and pieces else part

    def hold(self, record: TensorDiff, reference: Reference) -> bool:
        """Whether all sums of a lossy record with its reference stay finite; those that do not are not remembered."""
        dtype, coding = record.info.dtype, record.value_coding
        for part in record.changes():
            for positions, numbers in _pieces(part):
                before = _before(reference, positions)
                values = coding.differences(numbers, record.scale)
                if made_infinite(before, floats.add(before, values, dtype), dtype).any():
                    return False
        return True

    def add(self, name: str, before: Words, values: npt.NDArray[np.float64], info: TensorInfo) -> Words:
        """Words with float64 values added as format values are: rounded to float32, added, rounded to the dtype.

        Sums the dtype cannot hold are remembered, and with `clip` end at its largest finite number.
        """
        dtype = info.dtype
        with np.errstate(over="ignore"):
            after = floats.add(before, values.astype(np.float32), dtype)
        over = made_infinite(before, after, dtype)
        if over.any():
            after = self._ended(name, after, over, _wide(before[over], dtype) + values[over], dtype)
        return after

    def rounded(self, name: str, words: Words, source: DType, target: DType) -> Words:
        """Words of one float dtype rounded to another, watched in the same way."""
        values = to_float(words, source)
        after = from_float(values, target)
        over = not_finite(after, target) & np.isfinite(values)
        if over.any():
            after = self._ended(name, after, over, values[over].astype(np.float64), target)
        return after

    def _ended(
        self, name: str, after: Words, over: npt.NDArray[np.bool_], totals: npt.NDArray[np.float64], dtype: DType
    ) -> Words:
        self._remember(name, dtype, totals)
        if not self.clip:
            return after
        ended = after.copy()
        ended[over] = from_float(np.copysign(largest_finite(dtype), totals), dtype)
        return ended

    def _remember(self, name: str, dtype: DType, totals: npt.NDArray[np.float64]) -> None:
        largest = float(np.abs(totals).max())
        with self._lock:
            known = self.found.get(name, Overflow(dtype, 0, 0.0))
            self.found[name] = Overflow(dtype, known.entries + totals.size, max(known.largest, largest))

    def refuse(self, where: str, advice: str) -> None:
        """Raise `UsageError` naming the tensors with sums that are not finite, unless they were clipped."""
        if self.found and not self.clip:
            which = "; ".join(f"{printable(name)}: {self.found[name]}" for name in sorted(self.found)[:_MOST_TOLD])
            more = f" (and {len(self.found) - _MOST_TOLD} tensors more)" if len(self.found) > _MOST_TOLD else ""
            raise UsageError(f"{where}: sums would be infinite in the result: {which}{more}: {advice}")

    def notes(self) -> list[str]:
        """Say to people what was clipped."""
        if not self.found:
            return []
        which = listed([f"{printable(name)} ({self.found[name]})" for name in sorted(self.found)])
        return [f"clipped to the largest finite number: {which}"]

    def recipe(self) -> dict[str, str]:
        """What a diff's recipe says of what was clipped."""
        total = sum(item.entries for item in self.found.values())
        return {"clipped": f"{total} {'entry' if total == 1 else 'entries'}"} if total else {}


_MOST_TOLD = 3  # tensors a refusal describes


def _pieces(part: Changes) -> Iterator[tuple[npt.NDArray[np.int64] | tuple[int, int], Numbers]]:
    """Cut a part into blocks: the positions or (start, stop), and the numbers there."""
    if part.positions is None:
        for start, stop in blocks(part.stop, part.start):
            yield (start, stop), part.numbers[start - part.start : stop - part.start]
        return
    for first in range(0, part.numbers.size, BLOCK_WORDS):
        yield part.positions[first : first + BLOCK_WORDS], part.numbers[first : first + BLOCK_WORDS]


def _before(reference: Reference, positions: npt.NDArray[np.int64] | tuple[int, int]) -> Words:
    return reference.slice(*positions) if isinstance(positions, tuple) else reference.at(positions)


def _wide(words: Words, dtype: DType) -> npt.NDArray[np.float64]:
    return to_float(words, dtype).astype(np.float64)


def _clipped(before: Words, numbers: Numbers, coding: Added, scale: np.float32, dtype: DType) -> Numbers:
    """The numbers that lead from finite words to the largest finite number of their sign, or as near as they can.

    Numbers of every coding of merged values grow with the value they stand for, so one less in magnitude is nearer to
    nothing; a sum may take one such step, where rounding still carries it over.
    """
    values = coding.differences(numbers, scale).astype(np.float64)
    wanted = np.copysign(largest_finite(dtype), values) - _wide(before, dtype)
    kept = coding.numbers(wanted, scale)
    while (over := made_infinite(before, floats.add(before, coding.differences(kept, scale), dtype), dtype)).any():
        kept = np.where(over, kept - np.sign(kept), kept)
    return kept

"""What training costs: time, and memory above the loaded model's; counted on over an interruption."""

from __future__ import annotations

import time
from dataclasses import dataclass

from diffpack.train.loop.peak_memory import reset_peak, resident


@dataclass(frozen=True)
class Cost:
    """What was spent: seconds, the processor's seconds of all threads, the highest resident bytes above the start's.

    `peak_memory` is None where the system does not tell.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int | None = None


class Meter:
    """Counts from when it is made, on top of what was spent before."""

    def __init__(self) -> None:
        self.before = Cost()
        self._seconds, self._busy, self._resting = time.perf_counter(), time.process_time(), reset_peak()

    def read(self) -> Cost:
        """What was spent until now."""
        before, peak = self.before, resident(peak=True)
        above = None if peak is None or self._resting is None else max(0, peak - self._resting)
        known = [value for value in (above, before.peak_memory) if value is not None]
        return Cost(
            before.seconds + time.perf_counter() - self._seconds,
            before.cpu_seconds + time.process_time() - self._busy,
            max(known, default=None),
        )

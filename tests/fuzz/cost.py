"""What an input costs: processor time, and memory above the start."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # man 5 proc: the peak is the present size again


class Meter:
    """Measures what its body takes: `seconds` of processor time, `megabytes` of resident memory above its beginning.

    On Linux memory is measured anew for each body; elsewhere only what exceeds all bodies before is seen.
    """

    seconds = 0.0
    megabytes = 0.0

    def __enter__(self) -> Meter:
        self._anew = _CLEAR.exists()
        if self._anew:
            _CLEAR.write_text(_RESET_PEAK)
        self._before = _peak(self._anew)
        self._start = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._start
        self.megabytes = _peak(self._anew) - self._before


def _peak(anew: bool) -> float:
    """The largest resident memory so far, in megabytes."""
    if anew:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

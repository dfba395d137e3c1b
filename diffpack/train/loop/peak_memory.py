"""The peak of this process's memory between two moments, where the system tells it (Linux)."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the high-water mark of resident memory to what is resident now


def resident(peak: bool = False) -> int | None:
    """The resident bytes now, or their peak since the last `reset_peak`; None where unknown."""
    with contextlib.suppress(OSError):
        match = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s*(\d+) kB", _STATUS.read_text())
        return 1024 * int(match[1]) if match else None
    return None


def reset_peak() -> int | None:
    """Begin to measure; give the resident bytes now, or None if the peak cannot be told."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)
        return resident()
    return None

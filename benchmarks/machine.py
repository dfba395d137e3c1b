"""The name of the processor that was measured on."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor() -> str:
    """Give the processor's model name where the system tells it, its kind elsewhere."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()

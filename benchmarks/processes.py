"""Whole processes: how long they take and how much memory of their own, and the plain ones others are compared with."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

READ_AND_HASH = """
import sys
from blake3 import blake3
for path in sys.argv[1:]:
    print(blake3(open(path, "rb").read()).hexdigest())
"""
"""Reads files and hashes them, one after the other: what extract cannot do without."""
READ_WRITE_HASH = """
import sys
from blake3 import blake3
data = open(sys.argv[1], "rb").read()
print(blake3(data).hexdigest())
open(sys.argv[2], "wb").write(data)
print(blake3(data).hexdigest())
"""
"""Copies a file and hashes it twice: what apply cannot do without."""
_LOOKS_EVERY = 0.002


def timed(command: list[str], limit: float | None = None) -> tuple[float, int]:
    """Run a process; give its wall seconds and its peak of anonymous memory in bytes (0 where not known).

    Leaves with a message if it fails. Raises `subprocess.TimeoutExpired` after `limit` seconds.
    """
    peak = 0
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            found = re.search(r"RssAnon:\s*(\d+) kB", status)
            peak = max(peak, 1024 * int(found[1]) if found else 0)
            time.sleep(_LOOKS_EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        watcher.join()
    seconds = time.perf_counter() - start
    if code:
        sys.exit(f"{command} failed with {code}")
    return seconds, peak

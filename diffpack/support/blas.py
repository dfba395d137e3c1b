"""Matrix products on one thread each, while several threads of ours take products.

A BLAS that starts threads of its own in each of ours waits more than it computes (three times the time on two busy
cores), and rounds otherwise with another number of threads: what depends on rounded products would not be the same
bytes from run to run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_held: list[object] = []
"""The limiter of the first user that is under way, and one mark for each other one."""


@contextmanager
def single_threaded_products() -> Iterator[None]:
    """Keep BLAS, whichever numpy has, at one thread a product. For the whole process; users may overlap."""
    from threadpoolctl import threadpool_limits

    with _lock:
        _held.append(threadpool_limits(1, user_api="blas") if not _held else None)
    try:
        yield
    finally:
        with _lock:
            limiter = _held.pop() if len(_held) == 1 else _held.pop(1)
            if isinstance(limiter, threadpool_limits):
                limiter.restore_original_limits()

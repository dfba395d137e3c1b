"""Run independent jobs in threads: numpy, BLAKE3 and the codecs let go of the interpreter while they work."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Told (what is being done, bytes done, bytes in all)."""
_MOST_THREADS = 16  # beyond it memory bandwidth is the limit


def thread_count(threads: int | None) -> int:
    """The number of threads to use: as asked, else one a core this process may run on."""
    if threads is not None:
        return max(1, threads)
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def run_in_order(jobs: Iterable[Callable[[], T]], threads: int | None = None) -> Iterator[T]:
    """Run jobs in threads and yield their results in order, with at most two jobs a thread under way."""
    count = thread_count(threads)
    if count == 1:
        yield from (job() for job in jobs)
        return
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(count)
    try:
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) >= 2 * count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    """What counts bytes that are done, from any thread, and tells `progress` each time; None if nobody is told."""
    if progress is None:
        return None
    lock = threading.Lock()
    count = 0

    def add(nbytes: int) -> None:
        nonlocal count
        with lock:
            count += nbytes
            progress(what, count, total)

    return add


def run_all(jobs: Sequence[Callable[[], T]], threads: int | None = None) -> list[T]:
    """Run all jobs in threads; give their results in order."""
    return list(run_in_order(jobs, threads))


def run_counted(
    jobs: Sequence[Callable[[], T]], sizes: Iterable[int], threads: int | None, done: Callable[[int], None] | None
) -> list[T]:
    """The same, and tell `done` the size of each job when it has ended, in order."""
    results = []
    for size, result in zip(sizes, run_in_order(jobs, threads), strict=True):
        results.append(result)
        if done is not None:
            done(size)
    return results

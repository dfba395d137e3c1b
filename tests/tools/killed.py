"""Processes that are killed at a chosen instant, and what they leave."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

from diffpack.support import renames

_LOOKS = frozenset({"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"})
"""The audit events of what changes a folder, or opens what is in it."""


def fork(work: Callable[[], object]) -> int:
    """Do work in a forked process; give its number. It ends with 0, or 1 after an exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that may hold locks: pytest has none
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a forked process; give its exit code, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_every_step(work: Callable[[], object]) -> Iterator[int]:
    """Do the work again and again in processes of its own, killed at the first look at the file system, the second, ...

    Gives the number of the step after each, until one is not reached. Renames in one call count as two: killed before
    and after.
    """
    for step in count(1):
        if ended(fork(partial(_killed, work, step))) != -signal.SIGKILL:
            return
        yield step


def _killed(work: Callable[[], object], step: int) -> None:
    left = step
    renamed = renames._renamed

    def look() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, _: object) -> None:
        if event in _LOOKS:
            look()

    def renamed_and_seen(source: Path, target: Path, how: int) -> bool:
        look()
        done = renamed(source, target, how)
        look()
        return done

    renames._renamed = renamed_and_seen
    sys.addaudithook(audited)
    work()


def leftovers(folder: Path) -> list[str]:
    """The temporary names in a folder and those in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if path.suffix in (".part", ".old"))

"""Tasks by name: files until they are used, decoded ones kept while there is room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffpack.diff.diff import Diff, DiffLike, open_diff
from diffpack.errors import UsageError
from diffpack.live.decode import check_base, decode
from diffpack.live.live_base import LiveBase
from diffpack.live.patch import Patch
from diffpack.support.cache import Cache


class Version(NamedTuple):
    """What a model holds, as a key for caches of anything computed with it.

    `fingerprint` is the result's (hexadecimal): equal ones are the same weights. `added` counts the tasks a switcher
    was ever given, 0 is its base: a name that is given another file has another one. A diff that does not record its
    result's fingerprint (a merge made without the base) has its file's identity there.
    """

    fingerprint: str
    added: int

    def __str__(self) -> str:
        return f"{self.fingerprint}-{self.added}"


@dataclass(frozen=True)
class Task:
    """A task that was added: its diff's source, and what tells whether it is still the same."""

    name: str
    version: Version
    source: str | bytes | Diff
    identity: str
    nbytes: int

    @contextmanager
    def opened(self) -> Iterator[Diff]:
        """Its diff, open for a while; closed afterwards, unless somebody else opened it.

        Raises `UsageError` if the file is another one by now, and as `open_diff` does.
        """
        diff = open_diff(self.source)
        try:
            if diff.identity != self.identity:
                raise UsageError(f"{diff.name}: is another file than the one added as {self.name!r}: add it again")
            yield diff
        finally:
            if diff is not self.source:
                diff.close()


@dataclass(frozen=True)
class Usage:
    """What a switcher holds: tasks, those that are decoded, pinned ones, bytes of the decoded and their limit.

    `files` are the bytes of all tasks' files. `decoded_from_file` counts how often one had to be decoded, `found`
    how often it was there.
    """

    tasks: int
    decoded: tuple[str, ...]
    pinned: tuple[str, ...]
    decoded_bytes: int
    limit_bytes: int
    files: int
    decoded_from_file: int
    found: int


class Tasks:
    """The tasks of one base. Thread-safe."""

    def __init__(self, base: LiveBase, limit: int) -> None:
        self._base = base
        self._limit = limit
        self._tasks: dict[str, Task] = {}
        self._added = 0
        self._lock = threading.Lock()
        self._patches: Cache[int, Patch] = Cache(lambda patch: patch.nbytes, limit)
        self._pinned: dict[str, int] = {}
        self._ahead = ThreadPoolExecutor(1, "diffpack-prefetch")
        self._from_file = self._asked = 0

    def add(self, name: str, diff: DiffLike) -> Version:
        """Add a task, or give its name another diff; only the manifest is read. See `TaskSwitcher.add`."""
        if not isinstance(name, str):
            raise UsageError(f"a task's name is a string, not {name!r}")
        opened = open_diff(diff)
        source = diff if isinstance(diff, bytes | Diff) else str(Path(diff).absolute())
        try:
            check_base(opened, self._base)
            fingerprint = opened.manifest.result.fingerprint or opened.identity
        finally:
            if opened is not diff:
                opened.close()
        with self._lock:
            self._added += 1
            version = Version(fingerprint, self._added)
            self._forget(self._tasks.get(name))
            self._tasks[name] = Task(name, version, source, opened.identity, opened.nbytes)
        return version

    def remove(self, name: str) -> None:
        """Forget a task."""
        with self._lock:
            self._forget(self._tasks.pop(name) if name in self._tasks else self._missing(name))

    def _forget(self, task: Task | None) -> None:
        if task is not None:
            self._patches.let_go(task.version.added)
            self._pinned.pop(task.name, None)

    def _missing(self, name: str) -> Task:
        raise UsageError(f"no task {name!r} was added; there are {len(self._tasks)}")

    def __getitem__(self, name: str) -> Task:
        task = self._tasks.get(name)
        return self._missing(name) if task is None else task

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    @property
    def names(self) -> list[str]:
        """The tasks' names, in the order they were added."""
        return list(self._tasks)

    def patch(self, task: Task) -> Patch:
        """A task, decoded: from memory, else from its file."""
        self._asked += 1
        return self._patches.get(task.version.added, lambda: self._decode(task))

    def _decode(self, task: Task) -> Patch:
        self._from_file += 1
        with task.opened() as diff:
            return decode(diff, self._base)

    def pin(self, name: str) -> None:
        """Decode a task and keep it so, whatever the limit."""
        task = self[name]
        with self._lock:
            self._pinned[name] = task.version.added
        self._patches.pin(task.version.added)
        self.patch(task)

    def unpin(self, name: str) -> None:
        """Let a task go like any other."""
        with self._lock:
            self._pinned.pop(name, None)
        self._patches.unpin(self[name].version.added)

    def prefetch(self, name: str) -> Future[None]:
        """Decode a task in a thread of its own."""
        task = self[name]

        def ahead() -> None:
            self.patch(task)

        return self._ahead.submit(ahead)

    def evict(self, name: str) -> bool:
        """Let go of a decoded task, pinned or not; its file stays. Say whether it was decoded."""
        with self._lock:
            self._pinned.pop(name, None)
        return self._patches.let_go(self[name].version.added)

    def usage(self) -> Usage:
        """What is held."""
        with self._lock:
            tasks = list(self._tasks.values())
            pinned = tuple(self._pinned)
        kept = set(self._patches.kept)
        return Usage(
            tasks=len(tasks),
            decoded=tuple(task.name for task in tasks if task.version.added in kept),
            pinned=pinned,
            decoded_bytes=self._patches.kept_bytes,
            limit_bytes=self._limit,
            files=sum(task.nbytes for task in tasks),
            decoded_from_file=self._from_file,
            found=self._asked - self._from_file,
        )

    def close(self) -> None:
        """Let go of all tasks; what is being decoded ahead is given up."""
        self._ahead.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            for task in self._tasks.values():
                self._forget(task)
            self._tasks.clear()

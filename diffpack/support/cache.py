"""Things that are made once, by one thread, and kept while there is room: decoded spans, computed tensors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
KEPT_BYTES = 64 << 20


class Cache(Generic[K, T]):
    """Keeps the items used last, up to `limit` bytes by what `nbytes` says of each, and at least one. Thread-safe.

    Those of keys that are `pinned` are kept whatever the limit.
    """

    def __init__(self, nbytes: Callable[[T], int], limit: int = KEPT_BYTES) -> None:
        self._nbytes = nbytes
        self._limit = limit
        self._pinned: set[K] = set()
        self._kept: OrderedDict[K, T] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[K, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], T]) -> T:
        """The item of a key, made by `make` if it is not kept; what that raises is raised."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:  # one thread makes an item, others that want it wait
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            made = make()
            with self._lock:
                self._kept[key] = made
                self._kept_bytes += self._nbytes(made)
                self._trim(key)
                self._making.pop(key, None)
        return made

    def _trim(self, last: K) -> None:
        """Let go of items, those used longest ago first, but not of the last one."""
        for key in list(self._kept) if self._kept_bytes > self._limit else ():
            if self._kept_bytes <= self._limit:
                break
            if key != last and key not in self._pinned:
                self._kept_bytes -= self._nbytes(self._kept.pop(key))

    def pin(self, key: K) -> None:
        """Keep the item of a key, once it is there, until it is unpinned or let go of by name."""
        with self._lock:
            self._pinned.add(key)

    def unpin(self, key: K) -> None:
        """Treat the item of a key as any other again."""
        with self._lock:
            self._pinned.discard(key)

    def let_go(self, key: K) -> bool:
        """Let go of the item of a key, pinned or not; say whether it was there."""
        with self._lock:
            self._pinned.discard(key)
            if key not in self._kept:
                return False
            self._kept_bytes -= self._nbytes(self._kept.pop(key))
            return True

    @property
    def kept(self) -> list[K]:
        """The keys of the items that are there, those used longest ago first."""
        with self._lock:
            return list(self._kept)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the items that are there."""
        return self._kept_bytes

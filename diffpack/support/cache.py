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
    """Keeps the items used last, up to `limit` bytes by what `nbytes` says of each, and at least one. Thread-safe."""

    def __init__(self, nbytes: Callable[[T], int], limit: int = KEPT_BYTES) -> None:
        self._nbytes = nbytes
        self._limit = limit
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
                while self._kept_bytes > self._limit and len(self._kept) > 1:
                    self._kept_bytes -= self._nbytes(self._kept.popitem(last=False)[1])
                self._making.pop(key, None)
        return made

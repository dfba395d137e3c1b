"""Things that are made once, by one thread, and kept while there is room: decoded spans, positions of a rule."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
KEPT_BYTES = 64 << 20


class Recent(Generic[T]):
    """Gives item `key`, made by `make` if it is not among the most recent ones. Thread-safe; `make` may raise."""

    def __init__(self, make: Callable[[int], T], nbytes: Callable[[T], int]) -> None:
        self._make = make
        self._nbytes = nbytes
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._kept_bytes = 0
        self._making: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: int) -> T:
        """Give an item."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:  # one thread makes an item, others that want it wait
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            made = self._make(key)
            with self._lock:
                self._kept[key] = made
                self._kept_bytes += self._nbytes(made)
                while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
                    self._kept_bytes -= self._nbytes(self._kept.popitem(last=False)[1])
                self._making.pop(key, None)
        return made

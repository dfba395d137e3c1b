"""Python's search for reference cycles, made rare while a model is worked on."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_OBJECTS = 100_000
"""Objects made until the next search. Of a model of 18,000 tensors some hundred thousand objects live as long as the
work does, in no cycle: looking through them again and again takes a quarter of the processor time."""
_LOCK = threading.Lock()
_before: list[tuple[int, int, int]] = []
"""What each body under way found set, the first of them first."""


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Let cycles be looked for rarely in the body; as before after it, once no other thread is in such a body."""
    with _LOCK:
        found = gc.get_threshold()
        _before.append(found)
        if 0 < found[0] < _OBJECTS:  # 0: never
            gc.set_threshold(_OBJECTS, *found[1:])
    try:
        yield
    finally:
        with _LOCK:
            first = _before[0]
            _before.pop()
            if not _before:
                gc.set_threshold(*first)

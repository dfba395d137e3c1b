"""pcodec looks for NumPy in its first call, and panics where a signal breaks into that: so the first is made aside."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from diffpack.format.streams import pco


class Seen:
    """pcodec, and in which thread it was called."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.threads: list[threading.Thread] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            self.threads.append(threading.current_thread())
            return getattr(self.real, name)(*args)

        return call


@pytest.mark.parametrize("first", ["encode", "decode"])
def test_the_first_call_is_not_in_the_main_thread(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.arange(100, dtype=np.uint16)
    data = pco.encode(numbers)
    seen = Seen(pco.standalone)
    monkeypatch.setattr(pco, "standalone", seen)
    pco._find_numpy.cache_clear()
    if first == "encode":
        assert pco.encode(numbers) == data
    else:
        assert (pco.decode(data, numbers.dtype, 100, "here") == numbers).all()
    assert len(seen.threads) == 2
    assert seen.threads[0] is not threading.main_thread()
    assert seen.threads[1] is threading.main_thread()

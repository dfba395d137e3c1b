"""Whether an array is a view of a memory map."""

from __future__ import annotations

import mmap
from typing import Any

from diffpack.tensors.dtypes import Words


def is_mapped(words: Words) -> bool:
    base: Any = words
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base is not None

"""The `raw` codec: the numbers themselves, little-endian."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.errors import CorruptFileError

Numbers = npt.NDArray[Any]  # 1-D, little-endian, one of u1 .. u8, i1 .. i8


def encode(numbers: Numbers) -> bytes:
    """The numbers' bytes."""
    return numbers.tobytes()


def decode(data: bytes, dtype: np.dtype[Any], count: int, where: str) -> Numbers:
    """View bytes as numbers. Raises `CorruptFileError` if they are not `count` of them."""
    if len(data) != count * dtype.itemsize:
        raise CorruptFileError(f"{where}: {len(data)} raw bytes are not {count} numbers", "C4")
    return np.frombuffer(data, dtype=dtype)

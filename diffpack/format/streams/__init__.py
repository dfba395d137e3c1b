"""Integer arrays <-> bytes. One file a codec; this is their registry."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffpack.errors import CorruptFileError
from diffpack.format.streams import pco, raw, zstd
from diffpack.format.streams.raw import Numbers

__all__ = ["CODECS", "DTYPES", "SINCE", "Numbers", "decode", "dtype_name", "encode"]

DTYPES: dict[str, np.dtype[Any]] = {
    f"{kind}{bits}": np.dtype(f"<{kind}{bits // 8}") for kind in "ui" for bits in (8, 16, 32, 64)
}
CODECS = {"raw": raw.decode, "zstd": zstd.decode, "pco": pco.decode}
SINCE = {"zstd": 0, "pco": 0}
"""Codecs that a file must require, and the minor version of the format that brought them."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
SMALL = 1 << 12  # below this many numbers a second try costs nothing and pco's own tables can lose to zstd


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a stream dtype (`u8` .. `i64`)."""
    return _NAMES[dtype]


def encode(numbers: Numbers, profile: str) -> tuple[str, bytes]:
    """Code numbers (1-D) with the best codec of the profile; `raw` where none is smaller."""
    plain = raw.encode(numbers)
    if not plain:
        return "raw", plain
    if profile == "portable":
        candidates = [("zstd", zstd.encode(numbers))]
    else:
        candidates = [("pco", pco.encode(numbers))]
        if numbers.size <= SMALL or numbers.dtype == np.uint8:  # u8 is text and blobs: layouts, side files
            candidates.append(("zstd", zstd.encode(numbers)))
    codec, data = min(candidates, key=lambda candidate: len(candidate[1]))
    return (codec, data) if len(data) < len(plain) else ("raw", plain)


def decode(codec: str, dtype: str, count: int, data: bytes, where: str) -> Numbers:
    """Decode exactly `count` numbers of `dtype`. Raises `CorruptFileError` with rule C4."""
    numbers = CODECS[codec](data, DTYPES[dtype], count, where)
    if numbers.size != count:
        raise CorruptFileError(f"{where}: {numbers.size} numbers instead of {count}", "C4")
    return numbers

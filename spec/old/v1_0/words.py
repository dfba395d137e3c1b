# Kept as it was released with format 1.0; changed are this line and the imports of pages, which have a dot now.
"""Dtypes, words, rounding and the fingerprint: section 8 of format.md. And the errors all pages share."""

import math
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from blake3 import blake3

Array = npt.NDArray[Any]

QUIET_NAN = {"F64": 0x7FF8 << 48, "F32": 0x7FC0 << 16, "F16": 0x7E00, "BF16": 0x7FC0}
WIDTHS = {  # section 8: bits of an entry, bytes of a word, ordered as float
    (8, 1, False): "BOOL U8 I8 F8_E8M0", (8, 1, True): "F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ",
    (16, 2, False): "U16 I16", (32, 4, False): "U32 I32", (64, 8, False): "U64 I64", (16, 2, True): "F16 BF16",
    (32, 4, True): "F32", (64, 8, True): "F64", (64, 4, True): "C64",
    (4, 1, False): "F4", (6, 1, False): "F6_E2M3 F6_E3M2",
}  # fmt: skip
DTYPES = {name: width for width, names in WIDTHS.items() for name in names.split()}


class Invalid(Exception):
    """A file breaks the rule `rule` of format.md."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"[{rule}] {message}")
        self.rule = rule


class Unsupported(Invalid):
    """A file needs a newer reader: its major version (F2) or a feature it requires (M3) is not known here."""


class Tensor(NamedTuple):
    """The name of a tensor's dtype, its shape, and its little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def check(ok: object, rule: str, message: str) -> None:
    if not ok:
        raise Invalid(rule, message)


def size_of(dtype: str, shape: Iterable[int]) -> int:
    return -(-math.prod(shape) * DTYPES[dtype][0] // 8)


def words_of(dtype: str, shape: Iterable[int]) -> int:
    return size_of(dtype, shape) // DTYPES[dtype][1]


def ordered(words: Array) -> Array:
    """Map float words to ordered integers, or back: the map is its own inverse."""
    return np.where(words < 0, words ^ np.iinfo(words.dtype).max, words)


def widen(words: Array, dtype: str) -> Array:
    """Return the float32 (for F64: float64) of each word."""
    if dtype == "BF16":
        return (words.view("<u2").astype("<u4") << 16).view("<f4")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return words.view(f"<f{words.itemsize}").astype("<f8" if dtype == "F64" else "<f4")


def narrow(floats: Array, dtype: str) -> Array:
    """Round once, to nearest, ties to even; every NaN becomes the quiet one."""
    nan, width = np.isnan(floats), DTYPES[dtype][1]
    with np.errstate(all="ignore"):
        if floats.itemsize == 8 and width == 2:
            # Go through F32 towards zero, and set the last bit if any bit is lost: so the second rounding sees on
            # which side of a tie the number is.
            single = floats.astype("<f4")
            bits = single.view("<u4") - (np.abs(single.astype("<f8")) > np.abs(floats))
            floats = (bits | (single != floats)).astype("<u4").view("<f4")
        words: Array = floats.astype(f"<f{width}").view(f"<u{width}")
    if dtype == "BF16":
        bits = floats.view("<u4").astype("<u8")
        words = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    words[nan] = QUIET_NAN[dtype]
    return words.view(f"<i{width}")


def positions_of(gaps: Array, start: int, stop: int) -> Array:
    """Return the positions in [start, stop) that gaps lead to."""
    gaps = gaps.astype("<u8")
    total = (int((gaps >> 32).sum()) << 32) + int((gaps & 0xFFFFFFFF).sum())  # in halves: it may pass 2^64
    check(start + total + len(gaps) <= stop, "P1", "a position outside its span")
    positions: Array = np.cumsum(gaps + 1).astype("<i8") + (start - 1)
    return positions


def short_digest(data: bytes) -> str:
    return blake3(data).hexdigest(length=16)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    state = blake3(b"diffpack fingerprint 1\n" + struct.pack("<Q", len(tensors)))
    for name, (dtype, shape, data) in sorted((name.encode(), tensor) for name, tensor in tensors.items()):
        state.update(struct.pack("<I", len(name)) + name + struct.pack("<B", len(dtype)) + dtype.encode())
        state.update(struct.pack(f"<B{len(shape)}Q", len(shape), *shape) + blake3(data).digest())
    return state.hexdigest()

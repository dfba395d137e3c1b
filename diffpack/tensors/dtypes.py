"""Dtype names, words, and the ordered-integer line.

diffpack speaks of bit patterns. A tensor is a flat array of *words*, unsigned integers that hold the
little-endian bytes of its entries in C order. For most dtypes a word is an entry; a complex number is two
words, and dtypes smaller than a byte are stored as the bytes they are packed into.

The *ordered* map sends the words of a sign-magnitude float dtype to signed integers so that neighbouring
floats are neighbouring integers; it is a bijection (-0.0 and 0.0 stay apart) and its own inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]  # 1-D, one of u1 u2 u4 u8, little-endian
Positions = npt.NDArray[np.int64]  # of words in a tensor, or on a line of them: 1-D, strictly increasing


@dataclass(frozen=True)
class DType:
    """One dtype: its safetensors name, bits an entry, bits a word, and how words are ordered.

    `signed_magnitude` dtypes are ordered as floats, all others as two's complement integers.
    `arithmetic` dtypes can take lossy values: `float32(base) + float32(value)` is defined for them.
    """

    name: str
    bits: int
    word_bits: int
    signed_magnitude: bool = False
    arithmetic: bool = False

    def __hash__(self) -> int:
        return hash(self.name)

    @cached_property
    def word(self) -> np.dtype[Any]:
        """The unsigned numpy dtype of a word."""
        return np.dtype(f"<u{self.word_bits // 8}")

    @cached_property
    def step(self) -> np.dtype[Any]:
        """The signed numpy dtype of a step."""
        return np.dtype(f"<i{self.word_bits // 8}")

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape (sub-byte dtypes fill whole bytes)."""
        return (prod(shape) * self.bits + 7) // 8

    def words(self, shape: tuple[int, ...]) -> int:
        """Words of a tensor of this shape."""
        return self.nbytes(shape) * 8 // self.word_bits


def _table() -> dict[str, DType]:
    floats = [("F16", 16), ("BF16", 16), ("F32", 32), ("F64", 64)]
    small = [("F8_E4M3", 8), ("F8_E5M2", 8), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8)]
    whole = [("BOOL", 8), ("U8", 8), ("I8", 8), ("F8_E8M0", 8)]
    whole += [(f"{kind}{bits}", bits) for bits in (16, 32, 64) for kind in "UI"]
    packed = [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)]
    rows = [DType(name, bits, bits, signed_magnitude=True, arithmetic=True) for name, bits in floats]
    rows += [DType(name, bits, bits, signed_magnitude=True) for name, bits in small]
    rows += [DType(name, bits, bits) for name, bits in whole]
    rows += [DType(name, bits, 8) for name, bits in packed]
    rows.append(DType("C64", 64, 32, signed_magnitude=True))
    return {row.name: row for row in rows}


DTYPES: dict[str, DType] = _table()
"""All dtypes a checkpoint or a diff may hold, by their safetensors names."""

_NUMPY = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_FROM_NUMPY = {np.dtype(value).newbyteorder("<").name: key for key, value in _NUMPY.items()}
_FROM_NUMPY |= {value: key for key, value in _ML_DTYPES.items()}


def numpy_dtype(dtype: DType) -> np.dtype[Any] | None:
    """The numpy dtype of an entry; None for dtypes packed below a byte."""
    if dtype.name in _NUMPY:
        return np.dtype(_NUMPY[dtype.name])
    if dtype.name in _ML_DTYPES:
        import ml_dtypes

        entry: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype.name]))
        return entry
    return None


def from_numpy(dtype: np.dtype[Any]) -> DType | None:
    """The DType of a numpy (or ml_dtypes) dtype; None if it is not one of ours."""
    name = _FROM_NUMPY.get(dtype.name)
    return DTYPES[name] if name else None


def array_words(array: npt.NDArray[Any], dtype: DType) -> Words:
    """View (or, if not contiguous or not little-endian, copy) an array as its flat words."""
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and np.little_endian is False):
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(dtype.word)


_MOST_ARRAY_BYTES = (1 << 63) - 1  # strides are signed 64-bit numbers, also those of an array without entries


def fits_array(dtype: DType, shape: tuple[int, ...]) -> bool:
    """Tell whether numpy and torch can have an array of a shape: sizes of 0 leave the others to be multiplied."""
    return prod(max(size, 1) for size in shape) * max(dtype.bits, 8) // 8 <= _MOST_ARRAY_BYTES


def words_array(words: Words, dtype: DType, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """View words as an array of shape `shape` (packed dtypes stay a flat array of bytes)."""
    entry = numpy_dtype(dtype)
    return words if entry is None else words.view(entry).reshape(shape)


def ordered(words: Words, dtype: DType) -> npt.NDArray[Any]:
    """Map words to their place on the ordered-integer line, as signed integers of the same width."""
    line: npt.NDArray[Any] = words.view(dtype.step)
    if not dtype.signed_magnitude:
        return line
    mask: npt.NDArray[Any] = line >> np.array(dtype.word_bits - 1, line.dtype)
    mask &= np.array((1 << (dtype.word_bits - 1)) - 1, line.dtype)
    mask ^= line
    return mask


def unordered(line: npt.NDArray[Any], dtype: DType) -> Words:
    """Invert `ordered` (the map is its own inverse)."""
    return ordered(line.view(dtype.word), dtype).view(dtype.word)


MANTISSA_BITS = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}
"""Bits below the exponent, of arithmetic dtypes."""


def exponents(words: Words, dtype: DType) -> npt.NDArray[Any]:
    """The exponent of each word of an arithmetic dtype: its bits without sign and mantissa; u8, of F64 u16."""
    mantissa = MANTISSA_BITS[dtype.name]
    bits = dtype.word_bits - 1 - mantissa
    narrow = np.uint8 if bits <= 8 else np.uint16
    exponent: npt.NDArray[Any] = np.empty(words.size, narrow)
    np.right_shift(words, np.array(mantissa, words.dtype), out=exponent, casting="unsafe")  # no wide copy between
    if bits not in (8, 16):  # else what does not fit is the sign
        exponent &= narrow((1 << bits) - 1)
    return exponent


def to_float(words: Words, dtype: DType) -> npt.NDArray[Any]:
    """Widen words of an arithmetic dtype to float32 (float64 for F64), exactly."""
    if dtype.name == "F64":
        return words.view("<f8")
    if dtype.name == "F32":
        return words.view("<f4")
    if dtype.name == "F16":
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return words.view("<f2").astype("<f4")
    return (words.astype("<u4") << np.uint32(16)).view("<f4")


def from_float(values: npt.NDArray[Any], dtype: DType) -> Words:
    """Round float32 or float64 values to an arithmetic dtype: to nearest, ties to even, once.

    Every NaN becomes the positive quiet NaN whose payload is zero, so the bits do not depend on the machine.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype.name == "F64":
            words = values.astype("<f8").view("<u8")
        elif dtype.name == "F32":
            words = values.astype("<f4").view("<u4")
        elif dtype.name == "F16":
            words = values.astype("<f2").view("<u2")
        else:
            words = _round_bf16(values)
    nan = np.isnan(values)
    if nan.any():
        words = words.copy()
        words[nan] = _QUIET_NAN[dtype.name]
    return words


_QUIET_NAN = {"F64": 0x7FF8 << 48, "F32": 0x7FC0 << 16, "BF16": 0x7FC0, "F16": 0x7E00}


def _round_bf16(values: npt.NDArray[Any]) -> Words:
    if values.dtype == np.float64:
        values = _round_to_odd_f32(values)
    bits = values.astype("<f4").view("<u4")
    bits = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))  # wraps only for NaN
    words: Words = (bits >> np.uint32(16)).astype("<u2")
    return words


def _round_to_odd_f32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round float64 to float32 so that a second rounding gives what one rounding would (Boldo 2008)."""
    near = values.astype(np.float32)
    wide = near.astype(np.float64)
    down = np.where(np.abs(wide) > np.abs(values), np.nextafter(near, np.float32(0)), near)
    inexact = (down.astype(np.float64) != values) & np.isfinite(values)
    return np.where(inexact, (down.view("<u4") | np.uint32(1)).view("<f4"), down)


CONVERTIBLE = frozenset(name for name, dtype in DTYPES.items() if dtype.arithmetic)
"""Dtypes the reference may be converted between."""

"""NumPy arrays and numbers inside a pickle, which holds their bytes itself: built without numpy's own constructors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.format import limits
from diffpack.tensors.dtypes import Words, array_words, from_numpy
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource

_ORDERS = frozenset("<>|=")
_NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])


@dataclass(slots=True)
class PickledDtype:
    """Stands for numpy.dtype: `code` is kind and width (`f4`), `order` what its state sets."""

    code: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        """Take the byte order of a dtype's state. Raises `ValueError` for a strange one."""
        if not (isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) and state[1] in _ORDERS):
            raise ValueError("a strange numpy dtype")
        self.order = state[1]

    def real(self) -> np.dtype[Any] | None:
        """NumPy's own dtype, if it is one of numbers."""
        if self.code not in _NUMBERS:
            return None
        dtype = np.dtype(self.code)
        return dtype.newbyteorder(">") if self.order == ">" else dtype.newbyteorder("<")


@dataclass(slots=True, eq=False)
class PickledArray:
    """Stands for numpy.ndarray, made empty and filled by its state; offers what `StoredTensor` offers.

    Nothing of it is true before `check` has passed.
    """

    dtype: PickledDtype | None = None
    shape: tuple[int, ...] = ()
    raw: bytes | bytearray | None = None
    fortran: bool = False

    def set_state(self, state: Any) -> None:
        """Take shape, dtype, order and bytes, of objects nothing. Raises `ValueError` for what no array has."""
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, fortran)

    def fill(self, raw: Any, dtype: Any, shape: Any, fortran: Any) -> None:
        """Take what an array is made of. Raises as `set_state`."""
        if not isinstance(dtype, PickledDtype) or not isinstance(shape, tuple):
            raise ValueError("an array without a dtype or shape")
        if len(shape) > limits.DIMENSIONS:  # before they are looked at: arrays may share them
            raise ValueError(f"an array of {len(shape)} dimensions: more than a diff can hold")
        if any(type(size) is not int or not 0 <= size <= limits.JSON_INTEGER for size in shape):
            raise ValueError("an array of an impossible shape")
        self.dtype, self.shape, self.fortran = dtype, shape, bool(fortran)
        self.raw = raw if isinstance(raw, bytes | bytearray) else None

    @property
    def is_numbers(self) -> bool:
        """Whether it is an array of numbers, with entries in at least one dimension; others are a program's state."""
        return self.dtype is not None and self.dtype.real() is not None and len(self.shape) > 0

    def check(self, where: str) -> TensorInfo:
        """Dtype and shape, if its bytes are all there. Raises as `StoredTensor.check`."""
        real = None if self.dtype is None else self.dtype.real()
        ours = None if real is None else from_numpy(real.newbyteorder("<"))
        if real is None or ours is None:
            what = "objects" if self.dtype is None or real is None else str(real)
            raise UnsupportedCheckpointError(f"{where}: NumPy arrays of {what} are not supported")
        if len(self.shape) > limits.DIMENSIONS:
            raise CheckpointError(f"{where}: {len(self.shape)} dimensions: more than a diff can hold")
        if self.raw is None or len(self.raw) != prod(self.shape) * real.itemsize:
            raise CheckpointError(f"{where}: damaged: an array without all its bytes")
        return TensorInfo(ours, self.shape)

    def words(self, info: TensorInfo) -> Words:
        """Its words, read-only; `info` is what `check` gave."""
        real = None if self.dtype is None else self.dtype.real()
        assert real is not None
        assert self.raw is not None
        shape = tuple(reversed(self.shape)) if self.fortran else self.shape
        array = np.frombuffer(self.raw, real).reshape(shape)
        words = array_words(array.T if self.fortran else array, info.dtype)
        words.flags.writeable = False
        return words

    def word_source(self, info: TensorInfo) -> WordSource:
        """Its words: the pickle has them in memory anyway."""
        return self.words(info)

    @property
    def place(self) -> tuple[object, ...] | None:
        """What two names of one array have in common; None for one without entries."""
        return (id(self),) if prod(self.shape) else None


def number(dtype: Any, raw: Any) -> Any:
    """A NumPy number as Python's: a loss, or the first gap of a list; None for a scalar that is text or time.

    Raises `ValueError` for what is no scalar.
    """
    if not isinstance(dtype, PickledDtype):
        raise ValueError("a number of an unknown kind")
    real = dtype.real()
    if real is None:
        return None
    if not isinstance(raw, bytes | bytearray) or len(raw) != real.itemsize:
        raise ValueError("a number of an unknown kind")
    return np.frombuffer(raw, real)[0].item()

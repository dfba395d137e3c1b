"""The reference of a record: the base tensor in the result's dtype and shape (specification, section 6, step 4)."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpack.tensors.dtypes import CONVERTIBLE, DType, Words, from_float, to_float
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.word_source import Part, WordSource


class Reference:
    """The words a record's changes are relative to, made block by block where that is possible (a `WordSource`).

    `base` is None for a reference of zero bits. `words` gives the base tensor's words, part by part.
    """

    def __init__(self, info: TensorInfo, base: TensorInfo | None = None, words: WordSource | None = None) -> None:
        self.info = info
        self.size = info.words
        self.dtype: np.dtype[Any] = info.dtype.word
        self._base = base
        self._words = words
        self._lock = threading.Lock()
        self._resized: Words | None = None

    @property
    def unconverted(self) -> bool:
        """Whether its words are the base tensor's own: of the same dtype and shape."""
        return self._words is not None and self._base == self.info

    @property
    def source(self) -> WordSource:
        """What its words are read from: the base tensor itself, where they are that tensor's own."""
        return self._words if self._words is not None and self._base == self.info else self

    def __getitem__(self, part: Part, /) -> Words:
        """The words of a slice of step 1, or at positions."""
        if isinstance(part, slice):
            start, stop, _ = part.indices(self.size)
            return self.slice(start, stop)
        return self.at(part)

    def slice(self, start: int, stop: int) -> Words:
        """The words [start, stop)."""
        if self._base is None or self._words is None:
            return np.zeros(stop - start, self.info.dtype.word)
        if self._base.shape != self.info.shape:
            return self._whole()[start:stop]
        return convert(self._words[start:stop], self._base.dtype, self.info.dtype)

    def at(self, positions: npt.NDArray[np.int64]) -> Words:
        """The words at positions."""
        if self._base is None or self._words is None:
            return np.zeros(positions.size, self.info.dtype.word)
        if self._base.shape != self.info.shape:
            return self._whole()[positions]
        return convert(self._words[positions], self._base.dtype, self.info.dtype)

    def _whole(self) -> Words:
        with self._lock:
            if self._resized is None:
                assert self._base is not None
                assert self._words is not None
                self._resized = _resize(self._words, self._base, self.info)
        return self._resized


def convert(words: Words, source: DType, target: DType) -> Words:
    """Round words of one float dtype to another, once, to nearest even; words of the same dtype stay."""
    return words if source == target else from_float(to_float(words, source), target)


def _resize(words: WordSource, base: TensorInfo, info: TensorInfo) -> Words:
    """Copy the overlap of two shapes; the rest is zero bits. Takes the memory of one tensor."""
    per_entry = info.dtype.bits // info.dtype.word_bits  # 2 for complex numbers
    converted = np.empty(words.size, info.dtype.word)
    for start, stop in blocks(words.size):
        converted[start:stop] = convert(words[start:stop], base.dtype, info.dtype)
    whole = np.zeros((*info.shape, per_entry), info.dtype.word)
    overlap = tuple(slice(min(a, b)) for a, b in zip(base.shape, info.shape, strict=True))
    whole[overlap] = converted.reshape(*base.shape, per_entry)[overlap]
    return whole.reshape(-1)


def comparable(base: TensorInfo, tuned: TensorInfo) -> bool:
    """Tell whether a base tensor can serve as the reference: the rules G4 and G6 of the specification."""
    if base.dtype != tuned.dtype and not {base.dtype.name, tuned.dtype.name} <= CONVERTIBLE:
        return False
    if base.shape == tuned.shape:
        return True
    overlap = all(min(a, b) for a, b in zip(base.shape, tuned.shape, strict=False))
    return len(base.shape) == len(tuned.shape) > 0 and tuned.dtype.bits >= 8 and overlap

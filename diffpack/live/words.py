"""A torch tensor's memory as flat words: read and written at positions, its identity and storage untouched.

The same code for every device: positions and words are torch tensors on the tensor's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpack.checkpoints.torch_tensors import tensor_info
from diffpack.errors import UnsupportedCheckpointError
from diffpack.tensors.dtypes import Positions, Words

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers that torch indexes by their bits, by the bytes of a word."""
_SIGNED = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}
"""The same of numpy's."""
_NARROW = 1 << 31
_ONE_THREAD = (1 << 15) - 1
"""Numbers up to which torch starts no threads (its grain size)."""
_SHORT = 1 << 18
"""Numbers from which several threads are worth waiting for: a quarter of a millisecond of one."""


class TensorWords:
    """The words of a tensor of any strides, in C order of its entries, as integers of a word's width.

    `info` is its dtype and shape. Raises `UnsupportedCheckpointError`, calling the tensor `name`, for one without plain
    values here (sharded, quantised, on the meta device), and for one whose entries share memory (expanded).
    """

    def __init__(self, tensor: Tensor, name: str) -> None:
        self.name = name
        self.info = tensor_info(tensor, name)
        if tensor.is_conj() or tensor.is_neg():
            raise UnsupportedCheckpointError(f"{name}: a conjugated or negated view cannot be written in place")
        word = self.info.dtype.word.itemsize
        self._per_entry = tensor.element_size() // word
        self._strides = None if tensor.is_contiguous() else _strides(tensor, name)
        with torch.inference_mode(mode=False):  # a view made in it would not count writes
            self._flat = self._integers(tensor, _INTEGERS[word])
        self._inference = tensor.is_inference()

    def _integers(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The tensor's memory, in its order there, as one line of integers."""
        plain = tensor.detach()
        if self._strides is None:
            line = plain.reshape(-1)
        else:
            extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, self._strides, strict=True))
            line = torch.as_strided(plain, (extent,), (1,), tensor.storage_offset())
        return line.view(dtype)

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self._flat.device

    @property
    def dtype(self) -> torch.dtype:
        """The integers its words are."""
        return self._flat.dtype

    def index(self, positions: Positions) -> Tensor:
        """Sorted flat positions (in words, C order) on the tensor's device, int32 where they fit."""
        narrow = np.int32 if self.info.words < _NARROW else np.int64
        return torch.from_numpy(positions.astype(narrow)).to(self.device)

    def integers(self, words: Words) -> Tensor:
        """Words (numpy) as integers on the tensor's device; those of a processor share their memory."""
        return torch.from_numpy(words.view(_SIGNED[words.itemsize])).to(self.device)

    def gather(self, index: Tensor | None) -> Tensor:
        """The words at positions, or a copy of all."""
        if index is not None:
            found = [self._flat.index_select(0, self._places(part)) for part in _pieces(index)]
            return found[0] if len(found) == 1 else torch.cat(found)
        if self._strides is None:
            return self._flat.clone()
        return self._flat.index_select(0, self._places(torch.arange(self.info.words, device=self.device)))

    def slice(self, start: int, stop: int) -> Tensor:
        """The words [start, stop); they may share the tensor's memory."""
        if self._strides is None:
            return self._flat[start:stop]
        return self._flat.index_select(0, self._places(torch.arange(start, stop, device=self.device)))

    def scatter(self, index: Tensor | None, words: Tensor) -> None:
        """Write words at positions, or all of them."""
        with torch.inference_mode() if self._inference else contextlib.nullcontext():
            if index is None and self._strides is None:
                self._flat.copy_(words)
                return
            places = torch.arange(self.info.words, device=self.device) if index is None else index
            for part, new in zip(_pieces(places), _pieces(words), strict=True):
                self._flat.scatter_(0, self._places(part).long(), new)

    def _places(self, index: Tensor) -> Tensor:
        """Where in memory, counted in words from the first, the words at positions lie."""
        if self._strides is None:
            return index
        entries = index.long() if self._per_entry == 1 else index.long() // self._per_entry
        places = torch.zeros_like(entries)
        for size, stride in zip(reversed(self.info.shape), reversed(self._strides), strict=True):
            places += (entries % size) * stride
            entries = entries // size
        return places if self._per_entry == 1 else places * self._per_entry + index.long() % self._per_entry


def _pieces(line: Tensor) -> Sequence[Tensor]:
    """A line of numbers, in pieces that torch works on in one thread if it is short, and on a processor.

    Threads that wait for one another cost more than they save there: on busy cores ten times the time.
    """
    if line.device.type != "cpu" or not _ONE_THREAD < line.numel() <= _SHORT:
        return (line,)
    return torch.split(line, _ONE_THREAD)


def _strides(tensor: Tensor, name: str) -> tuple[int, ...]:
    """The strides of a tensor that is not contiguous. Raises `UnsupportedCheckpointError` if entries share memory."""
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < reach:
            raise UnsupportedCheckpointError(f"{name}: its entries share memory (an expanded or overlapping view)")
        reach += (size - 1) * stride
    return tensor.stride()


def host_words(integers: Tensor, dtype: np.dtype[Any]) -> Words:
    """Integers, on any device, as numpy words of a dtype; those of a CPU tensor share its memory."""
    words: Words = integers.cpu().numpy().view(dtype)
    return words

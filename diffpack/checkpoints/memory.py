"""Checkpoints in memory: a mapping of numpy arrays or torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffpack.checkpoints.base import Checkpoint
from diffpack.errors import UnsupportedCheckpointError
from diffpack.tensors.dtypes import Words, array_words, from_numpy
from diffpack.tensors.info import TensorInfo


class MappingCheckpoint(Checkpoint):
    """Named arrays or tensors; contiguous ones are not copied."""

    layout = "memory"

    def __init__(self, arrays: Mapping[str, Any], source: str = "tensors in memory") -> None:
        super().__init__(source)
        self._tensors: dict[str, TensorInfo] = {}
        self._words: dict[str, Words] = {}
        places: dict[tuple[int, TensorInfo], str] = {}
        for name, array in arrays.items():
            info, words = self._convert(name, array)
            self._tensors[name], self._words[name] = info, words
            first = places.setdefault((words.__array_interface__["data"][0], info), name)
            if words.size and first != name:
                self.ties[name] = first

    def _convert(self, name: str, array: Any) -> tuple[TensorInfo, Words]:
        if not isinstance(name, str):
            raise UnsupportedCheckpointError(f"{self.source}: the tensor name {name!r} is not a string")
        if type(array).__module__.partition(".")[0] == "torch" or hasattr(array, "data_ptr"):
            from diffpack.checkpoints.torch_tensors import tensor_words

            return tensor_words(array, f"{self.source}: {name!r}")
        array = np.asarray(array)
        dtype = from_numpy(array.dtype)
        if dtype is None:
            raise UnsupportedCheckpointError(f"{self.source}: tensor {name!r} has the dtype {array.dtype}")
        return TensorInfo(dtype, array.shape), array_words(array, dtype)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words."""
        self.info(name)
        return self._words[name]

"""Checkpoints in memory: a mapping of numpy arrays or torch tensors, or a torch module's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffpack.checkpoints.base import Checkpoint
from diffpack.errors import UnsupportedCheckpointError
from diffpack.tensors.dtypes import Words, array_words, from_numpy
from diffpack.tensors.info import TensorInfo

STATE_MARK = "_metadata"
"""What `torch.nn.Module.state_dict` hangs on the dict it gives: its names are those the module takes back."""
EXTRA_STATE = "_extra_state"
"""How the last name of what `get_extra_state` gave begins in a state dict; it may be anything."""


class MappingCheckpoint(Checkpoint):
    """Named arrays or tensors; contiguous ones are not copied.

    Of a `state_dict()` extra state that is no tensor is left out.
    """

    layout = "memory"
    live = True

    def __init__(self, arrays: Mapping[str, Any], source: str = "tensors in memory") -> None:
        super().__init__(source)
        self.named_for_module = hasattr(arrays, STATE_MARK)
        self._tensors: dict[str, TensorInfo] = {}
        self._words: dict[str, Words] = {}
        places: dict[tuple[object, TensorInfo], str] = {}
        for name, array in arrays.items():
            if self.named_for_module and name.rpartition(".")[2].startswith(EXTRA_STATE) and not is_tensor(array):
                self.left_out.append(name)
                continue
            info, words = self._convert(name, array)
            self._tensors[name], self._words[name] = info, words
            first = places.setdefault((_place(array, words), info), name)
            if words.size and first != name:
                self.ties[name] = first

    def _convert(self, name: str, array_like: Any) -> tuple[TensorInfo, Words]:
        if not isinstance(name, str):
            raise UnsupportedCheckpointError(f"{self.source}: the tensor name {name!r} is not a string")
        if is_tensor(array_like):
            from diffpack.checkpoints.torch_tensors import tensor_words

            return tensor_words(array_like, f"{self.source}: {name!r}")
        array = np.asarray(array_like)
        if array.dtype == object:
            raise UnsupportedCheckpointError(
                f"{self.source}: {name!r} is a {type(array_like).__name__}, which is no array of numbers: a checkpoint "
                "in memory is a torch module, its state_dict(), or a mapping of arrays or tensors by name"
            )
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


def _place(array: Any, words: Words) -> object:
    """Where an array lies; words may be a copy of what lies on another device, or in pieces."""
    if is_tensor(array) and hasattr(array, "stride"):
        return str(array.device), array.data_ptr(), array.stride()
    return words.__array_interface__["data"][0]


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch's, or of its kind."""
    return hasattr(value, "data_ptr")


def is_module(value: Any) -> bool:
    """Whether a value is a `torch.nn.Module`, told without importing torch."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == _MODULE for kind in type(value).__mro__)


_MODULE = "torch.nn.modules.module.Module"


def module_checkpoint(module: Any) -> MappingCheckpoint:
    """A torch module as a checkpoint: what its `state_dict()` holds, sharing its memory where that is a processor's.

    Raises `UnsupportedCheckpointError` as `MappingCheckpoint` does, for tensors without values here: on the meta
    device, in shards of several processes, of layers that are not initialised.
    """
    return MappingCheckpoint(module.state_dict(), f"the {type(module).__name__} in memory")

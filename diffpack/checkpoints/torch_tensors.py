"""Words as torch tensors and back. torch is imported when the first function here needs it, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffpack.checkpoints.torch_dtypes import FROM_TORCH, TORCH, our_shape, torch_shape
from diffpack.errors import MissingDependencyError, UnsupportedCheckpointError
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo

if TYPE_CHECKING:
    import torch

_INTEGERS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}  # torch copies these by their bits, any strides


def tensor_words(tensor: torch.Tensor, name: str = "tensor") -> tuple[TensorInfo, Words]:
    """What is known of a torch tensor, on any device and of any strides, and its read-only words.

    The words share the memory of a contiguous CPU tensor. An F4 tensor's last dimension counts entries, as in
    safetensors, where torch counts bytes. Raises `UnsupportedCheckpointError`, calling the tensor `name`.
    """
    info = tensor_info(tensor, name)
    plain = tensor.detach().resolve_conj().resolve_neg()
    integers = plain.view(getattr(import_torch(), _INTEGERS[plain.element_size()]))
    words = integers.cpu().contiguous().numpy().reshape(-1).view(info.dtype.word)
    words.flags.writeable = False
    return info, words


def to_torch(words: Words, info: TensorInfo, name: str = "tensor") -> torch.Tensor:
    """Copy words into a new, writable CPU tensor.

    Raises `UnsupportedCheckpointError`, calling the tensor `name`, if torch lacks the dtype.
    """
    return as_tensor(np.array(words), info, name)


def import_torch(what: str = "a tensor of torch's") -> Any:
    """Import torch; raises `MissingDependencyError`, which says `what` it is needed for."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", what) from error
    return torch


def tensor_info(tensor: torch.Tensor, name: str) -> TensorInfo:
    """A tensor's dtype and shape. Raises `UnsupportedCheckpointError` unless it is a plain array, its values here."""
    for sort in type(tensor).__mro__:
        if sort.__name__ in _NO_VALUES:
            raise UnsupportedCheckpointError(f"{name}: {_NO_VALUES[sort.__name__]}")
    if tensor.is_meta:
        raise UnsupportedCheckpointError(
            f"{name}: on the meta device, it has no values here: load the model whole (from_pretrained without "
            "device_map, or its offloaded layers brought back), then give it again"
        )
    kind = str(tensor.dtype).removeprefix("torch.")
    plain = tensor.layout == import_torch().strided and not tensor.is_quantized and not tensor.is_nested
    if not plain or kind not in FROM_TORCH:
        layout = f"{tensor.layout}".removeprefix("torch.")
        raise UnsupportedCheckpointError(f"{name}: {kind} tensors ({layout}) are not supported")
    if not hasattr(tensor, "untyped_storage") or _is_wrapper(tensor):
        raise UnsupportedCheckpointError(
            f"{name}: a {type(tensor).__name__}, which keeps its values in a form of its own (quantised, sharded): "
            "give the model as it was before, in plain tensors"
        )
    ours = FROM_TORCH[kind]
    return TensorInfo(DTYPES[ours], our_shape(ours, tuple(tensor.shape)))


_GATHER = (
    "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, "
    "options=StateDictOptions(full_state_dict=True)) gathers them all on every process: give what that gives"
)
_NO_VALUES = {
    "DTensor": f"a DTensor, of which each process holds a part: {_GATHER}",
    "ShardedTensor": f"a ShardedTensor, of which each process holds a part: {_GATHER}",
    "UninitializedTensorMixin": "not initialised, it has no shape yet: run the module once, then give it again",
    "FakeTensor": "a FakeTensor, it has no values: give the model outside of FakeTensorMode",
}
"""Kinds of tensors without their values here, by a class they derive from, and what to do."""


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a tensor is but a front for others (torch's quantised and distributed kinds are)."""
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    return bool(is_traceable_wrapper_subclass(tensor))


def as_tensor(words: Words, info: TensorInfo, name: str) -> torch.Tensor:
    """View writable words as a tensor. Raises `UnsupportedCheckpointError` if torch cannot hold it."""
    shape = torch_shape(info.dtype.name, info.shape)
    dtype = getattr(import_torch(), TORCH.get(info.dtype.name, ""), None)
    if dtype is None or shape is None:
        raise UnsupportedCheckpointError(f"{name}: PyTorch cannot hold {info}")
    if not words.size:
        empty: torch.Tensor = import_torch().empty(shape, dtype=dtype)
        return empty
    tensor: torch.Tensor = import_torch().from_numpy(words.view(_INTEGERS[dtype.itemsize]))
    return tensor.view(dtype).reshape(shape)

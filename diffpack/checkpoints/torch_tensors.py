"""Words as torch tensors and back. torch is imported when the first function here needs it, not before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from diffpack.errors import MissingDependencyError, UnsupportedCheckpointError
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo

if TYPE_CHECKING:
    import torch

_TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}  # fmt: skip
_FROM_TORCH = {f"torch.{value}": key for key, value in _TORCH.items()}
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


def import_torch() -> Any:
    """Import torch; raises `MissingDependencyError`."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", "reading PyTorch checkpoints") from error
    return torch


def tensor_info(tensor: torch.Tensor, name: str) -> TensorInfo:
    """A tensor's dtype and shape. Raises `UnsupportedCheckpointError` unless it is a plain array."""
    kind = str(tensor.dtype)
    plain = tensor.layout == import_torch().strided and not tensor.is_quantized and not tensor.is_nested
    if not plain or tensor.is_meta or kind not in _FROM_TORCH:
        layout = "meta" if tensor.is_meta else f"{tensor.layout}".removeprefix("torch.")
        raise UnsupportedCheckpointError(f"{name}: {kind} tensors ({layout}) are not supported")
    dtype = DTYPES[_FROM_TORCH[kind]]
    shape = tuple(tensor.shape)
    if dtype.name == "F4":
        shape = (*shape[:-1], 2 * shape[-1]) if shape else (2,)
    return TensorInfo(dtype, shape)


def torch_dtype(info: TensorInfo, name: str) -> Any:
    """The torch dtype of a tensor. Raises `UnsupportedCheckpointError` if torch cannot hold it."""
    dtype = getattr(import_torch(), _TORCH.get(info.dtype.name, ""), None)
    if dtype is None or (info.dtype.name == "F4" and (not info.shape or info.shape[-1] % 2)):
        raise UnsupportedCheckpointError(f"{name}: PyTorch cannot hold {info}")
    return dtype


def as_tensor(words: Words, info: TensorInfo, name: str) -> torch.Tensor:
    """View writable words as a tensor. Raises `UnsupportedCheckpointError` as `torch_dtype` does."""
    dtype = torch_dtype(info, name)
    shape = (*info.shape[:-1], info.shape[-1] // 2) if info.dtype.name == "F4" else info.shape
    tensor: torch.Tensor
    if words.size:
        tensor = import_torch().from_numpy(words.view(_INTEGERS[dtype.itemsize])).view(dtype).reshape(shape)
    else:  # without an address: torch refuses to save two dtypes at one
        tensor = import_torch().empty(shape, dtype=dtype)
    return tensor


def torch_cause(error: BaseException | None) -> str:
    """One line of torch's message, which may be a page about trusting files."""
    text = str(error)
    told = re.search(r"(?:WeightsUnpickler error: |Trying to load )([^\n]*)", text)
    lines = (told[1] if told else text).split(". Please use")[0].strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

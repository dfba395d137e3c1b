"""Where tensors lie in memory: which are the same, and which share a part, so that none is written alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def memory_of(tensor: Tensor) -> tuple[object, ...]:
    """What tied tensors have in common, and no others that have entries: device, address, dtype, shape and strides."""
    return str(tensor.device), tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def overlapping(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Lead from each tensor that shares memory with another one to that one's name.

    Tied tensors are to be given once. Columns of one matrix lie between each other and share nothing.
    """
    by_device: dict[str, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            by_device.setdefault(str(tensor.device), []).append((*span(tensor), name))
    found: dict[str, str] = {}
    for spans in by_device.values():
        spans.sort()
        for at, (_, end, name) in enumerate(spans):
            for start, _, other in spans[at + 1 :]:
                if start >= end:
                    break
                if not _interleaved(tensors[name], tensors[other]):
                    found[name], found[other] = other, name
    return found


def span(tensor: Tensor) -> tuple[int, int]:
    """Where in memory a tensor begins and ends, in bytes."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _interleaved(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie between each other's rows (columns of one matrix), without a common entry."""
    if one.stride() != other.stride() or one.element_size() != other.element_size():
        return False
    row = max(one.stride(), default=1)
    inner = [tensor.shape[tensor.stride().index(1)] for tensor in (one, other) if 1 in tensor.stride()]
    apart = abs(other.data_ptr() - one.data_ptr()) // one.element_size() % row
    return row > 1 and len(inner) == 2 and inner[0] <= apart and apart + inner[1] <= row

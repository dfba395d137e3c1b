"""Tensors put together from slices of others: step 2 of section 6 of format.md."""

import math
from typing import Any

import numpy as np

from .words import DTYPES, Array, Tensor, check


def entries_of(tensor: Tensor, swapped: bool) -> Array:
    """The entries in C order, those of a swapped tensor with its last two dimensions exchanged."""
    entries = np.frombuffer(tensor.data, f"V{DTYPES[tensor.dtype][0] // 8}").reshape(tensor.shape)
    return (entries.swapaxes(-1, -2) if swapped else entries).reshape(-1)


def assembled(name: str, assembly: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor:
    shape, found = tuple(assembly["shape"]), []
    for source, swapped, first, entries in assembly["pieces"]:
        there = tensors.get(source)
        check(there, "A2", f"{name!r} is made of {source!r}, which is not in the base")
        assert there
        fits = first + entries <= math.prod(there.shape) and len(there.shape) >= 2 * swapped
        check(fits and DTYPES[there.dtype][0] >= 8, "A2", f"{source!r} has no such slice")
        found.append((there.dtype, entries_of(there, swapped)[first : first + entries]))
    dtypes = {dtype for dtype, _ in found}
    check(len(dtypes) == 1, "A2", f"{name!r} is made of tensors of several dtypes")
    whole = np.concatenate([entries for _, entries in found])
    if assembly["swapped"]:
        whole = whole.reshape(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)
    return Tensor(dtypes.pop(), shape, whole.tobytes())

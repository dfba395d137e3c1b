"""Both sides as equally long runs of words, one for each width: for methods that XOR one buffer with another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.size.tensors import Tensor, Tensors, reference, word_type

Runs = dict[str, npt.NDArray[Any]]


def description(tensors: Tensors) -> list[Any]:
    """Say what has to be stored beside the words: names, dtypes and shapes."""
    return [[name, tensor.dtype, tensor.shape] for name, tensor in tensors.items()]


def described(entries: list[Any]) -> Tensors:
    """Give tensors of zeros of such a description."""
    return {
        name: Tensor(dtype, tuple(shape), np.zeros(int(np.prod(shape)), word_type(dtype)))
        for name, dtype, shape in entries
    }


def runs(tensors: Tensors) -> Runs:
    """Put the words of all tensors of a dtype one after the other."""
    parts: dict[str, list[Any]] = {}
    for tensor in tensors.values():
        parts.setdefault(tensor.dtype, []).append(tensor.words)
    return {dtype: np.concatenate(words) for dtype, words in parts.items()}


def base_runs(base: Tensors, tensors: Tensors) -> Runs:
    """Give the same of what the tensors are changes of; zeros where the base has no counterpart."""
    return runs(
        {name: Tensor(t.dtype, t.shape, reference(base, name, t).astype(t.words.dtype)) for name, t in tensors.items()}
    )


def cut(all_runs: Runs, tensors: Tensors) -> Tensors:
    """Cut runs into tensors of the given dtypes and shapes."""
    found, starts = {}, dict.fromkeys(all_runs, 0)
    for name, tensor in tensors.items():
        start = starts[tensor.dtype]
        starts[tensor.dtype] = stop = start + tensor.words.size
        found[name] = Tensor(tensor.dtype, tensor.shape, all_runs[tensor.dtype][start:stop])
    return found

"""What a record changes, and how: steps 4 and 5 of section 6 of format.md."""

import math
from typing import Any

import numpy as np

from .words import DTYPES, Array, Tensor, check, narrow, ordered, widen, words_of


def resize(words: Array, old: list[int], new: list[int]) -> Array:
    result: Array = np.zeros(math.prod(new), words.dtype)
    if math.prod(map(min, old, new)):
        source = target = np.zeros(1, np.int64)
        for a, b in zip(old, new, strict=True):
            both = np.arange(min(a, b))
            source, target = (source[:, None] * a + both).ravel(), (target[:, None] * b + both).ravel()
        result[target] = words[source]
    return result


def reference(g: dict[str, Any], name: str, shape: list[int], tensors: dict[str, Tensor]) -> Array:
    dtype, base, old = g["dtype"], g["base"], g["resized"].get(name, shape)
    if base is None:
        return np.zeros(words_of(dtype, shape), f"<i{DTYPES[dtype][1]}")
    there = name in tensors and tensors[name][:2] == (base, tuple(old))
    check(there, "A4", f"the base has no tensor {name!r} of dtype {base} and shape {old}")
    words: Array = np.frombuffer(tensors[name].data, f"<i{DTYPES[base][1]}")
    words = narrow(widen(words, base), dtype) if base != dtype else words
    pair = [2] if dtype == "C64" else []  # two words an entry: one dimension more
    return resize(words, old + pair, shape + pair) if old != shape else words


def change(words: Array, values: Array, dtype: str, exact: bool) -> Array:
    if exact:
        return ordered(ordered(words) + values) if DTYPES[dtype][2] else words + values
    floats = widen(words, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return narrow(floats + values.astype(floats.dtype), dtype)

"""What a pair holds, and what coding it without any context costs at least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.size.catalogue import Pair
from benchmarks.size.tensors import line, read, reference


@dataclass(frozen=True)
class Facts:
    """Sizes of a pair: bytes and words of the tuned tensors, how many words differ, and the bound in bytes."""

    tensor_bytes: int
    words: int
    changed: int
    bound: int


def facts(pair: Pair) -> Facts:
    """Count, and add up n H(p) for the positions and the empirical entropy of order 0 for the steps.

    n is the number of words, p the fraction that changes, both over the whole model; the steps are those of all changed
    words together, one distribution for each width. Tensors without a counterpart in the base count as what they are.
    """
    base, tuned = read(pair.base), read(pair.tuned)
    base = {name.removeprefix(pair.prefix): tensor for name, tensor in base.items()}
    words = changed = new = 0
    steps: dict[int, list[np.ndarray]] = {}  # type: ignore[type-arg]
    for name, tensor in tuned.items():
        if name not in base or (base[name].dtype, base[name].shape) != (tensor.dtype, tensor.shape):
            new += tensor.words.nbytes
            continue
        before = base[name]
        where = reference(base, name, tensor) != tensor.words
        words += tensor.words.size
        changed += int(where.sum())
        width = tensor.words.dtype.itemsize
        steps.setdefault(width, []).append((line(tensor) - line(before))[where])
    bits = words * binary_entropy(changed / words) if words else 0.0
    for parts in steps.values():
        _, counts = np.unique(np.concatenate(parts), return_counts=True)
        if counts.size:
            bits += float(-(counts * np.log2(counts / counts.sum())).sum())
    sizes = [tensor.words.nbytes for tensor in tuned.values()]
    fresh = sum(tensor.words.size for tensor in tuned.values()) - words
    return Facts(sum(sizes), words + fresh, changed + fresh, int(np.ceil(bits / 8)) + new)


def binary_entropy(p: float) -> float:
    """Bits a word to say whether it changes."""
    return 0.0 if p in (0.0, 1.0) else float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))

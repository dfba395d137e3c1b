"""How much the error of each tensor matters: weights read from a checkpoint that holds them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.errors import UsageError
from diffpack.tensors.dtypes import to_float
from diffpack.tensors.info import TensorInfo


def weights(source: Checkpoint, tensors: Mapping[str, TensorInfo]) -> dict[str, float]:
    """Read the weight of each tensor: the mean of what an importance checkpoint holds under its name.

    Raises `UsageError` if a weight is negative or not finite, or no name is one of `tensors`.
    """
    means = {}
    for name in sorted(source.tensors.keys() & tensors.keys()):
        dtype = source.info(name).dtype
        if not dtype.arithmetic:
            raise UsageError(f"{source.source}: {name!r}: weights are floats, not {dtype.name}")
        means[name] = float(np.mean(to_float(source.words(name), dtype), dtype=np.float64))
        if not 0 <= means[name] < np.inf:
            raise UsageError(f"{source.source}: {name!r}: a weight is finite and not negative, not {means[name]}")
    if not means:
        raise UsageError(
            f"{source.source}: holds a weight for none of the tuned checkpoint's tensors; are its names others?"
        )
    return means

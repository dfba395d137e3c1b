"""The factors of a LoRA adapter: which modules have them, and what the product of each is multiplied by.

The scale is lora_alpha / r, or / sqrt(r) with `use_rslora` (arXiv 2312.03732); the factors themselves tell r, so
`rank_pattern` is not needed. The layout is that of PEFT 0.21, and of all before it that have the same names.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffpack.bridges.formats.peft_adapter import GATHER, MERGE, Adapter
from diffpack.errors import CheckpointError, CorruptFileError, UsageError
from diffpack.support.names import printable
from diffpack.support.safe_regex import compile_pattern
from diffpack.tensors.dtypes import to_float

_PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
_BIAS = ".lora_B.bias"
_MAGNITUDE = ".lora_magnitude_vector"

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One adapted module: the suffixes of its factors' names, its rank and scale."""

    module: str
    first: str
    second: str
    rank: int
    scale: float

    @property
    def embedding(self) -> bool:
        """Whether the factors are those of an embedding, which stand the other way round."""
        return "embedding" in self.first

    @property
    def magnitude(self) -> str:
        """The name of DoRA's magnitudes, if the adapter has them."""
        return self.module + _MAGNITUDE

    @property
    def names(self) -> set[str]:
        """What the adapter calls the layer's tensors."""
        return {self.module + self.first, self.module + self.second, self.magnitude}


def find_layers(adapter: Adapter) -> tuple[list[Layer], list[Layer]]:
    """The modules with factors of their weights, and those with a change of their biases.

    Raises `CorruptFileError` (half of a pair, an alpha that is no number), `CheckpointError` (factors without a rank),
    `UsageError` for patterns that are not known here.
    """
    layers, biases = [], []
    for name in sorted(adapter.keys):
        for first, second in _PAIRS.items():
            if name.endswith(first):
                layers.append(_layer(adapter, name.removesuffix(first), first, second))
            elif name.endswith(second):
                _layer(adapter, name.removesuffix(second), first, second)  # that the other half is there
        if name.endswith(_BIAS):
            biases.append(_layer(adapter, name.removesuffix(_BIAS), ".lora_A.weight", _BIAS))
    return layers, biases


def _layer(adapter: Adapter, module: str, first: str, second: str) -> Layer:
    where = f"{adapter.path}: {printable(module)}"
    for half, other in ((first, second), (second, first)):
        if module + half not in adapter.keys:
            raise CorruptFileError(
                f"{where}: has only one of the factors A and B: {printable(module + half)} is missing beside "
                f"{printable(other)}; the file is a part of an adapter: save or copy it anew"
            )
    rank = adapter.weights.info(adapter.keys[module + first]).shape[:1]
    if not rank or not rank[0]:
        raise CheckpointError(f"{where}: a factor without a rank: {GATHER}")
    alpha = _of_pattern(adapter, "alpha_pattern", module, adapter.config.get("lora_alpha", 8))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= sys.float_info.max:
        raise CorruptFileError(f"{where}: lora_alpha is {alpha!r}, not a number")
    divisor = math.sqrt(rank[0]) if adapter.config.get("use_rslora") else rank[0]
    return Layer(module, first, second, rank[0], alpha / divisor)


def _of_pattern(adapter: Adapter, key: str, module: str, default: object) -> object:
    r"""What a pattern says of a module: its first key that, as PEFT reads it (`(.*\.)?(KEY)$`), is the module's name.

    Raises `UsageError` for a key that is no regular expression known here.
    """
    patterns = adapter.config.get(key) or {}
    if not isinstance(patterns, Mapping):
        raise CorruptFileError(f"{adapter.path}: {key} is not an object")
    for pattern, value in patterns.items():
        try:
            if compile_pattern(rf"(.*\.)?({pattern})").matches(module):
                return value
        except UsageError as error:
            raise UsageError(f"{adapter.path}: {key}: {error}: write it out as names of modules, or {MERGE}") from None
    return default


def factor(adapter: Adapter, name: str) -> Matrix:
    """A factor as a float64 matrix of (its first dimension, the rest)."""
    info = adapter.weights.info(adapter.keys[name])
    if not info.dtype.arithmetic or len(info.shape) < 1:
        raise CorruptFileError(f"{adapter.path}: {printable(name)}: {info} is no factor")
    with np.errstate(invalid="ignore"):  # signalling NaNs; what is not finite is refused later
        values = to_float(adapter.weights.words(adapter.keys[name]), info.dtype).astype(np.float64)
    return values.reshape(info.shape[0], -1)

"""PEFT LoRA adapters, to read: the steps that lead from the base to the model that merging the adapter gives.

The change of a weight is scale x B A, with the scale lora_alpha / r (or / sqrt(r), `use_rslora`). It is dense, and the
diff keeps the merged weights, not the two factors. They are computed the same way on every machine: rank by rank in
float64, rounded once to float32, added to the base in float32 and rounded once to its dtype. PEFT multiplies in
float32, in the order of its matrix library, so its last bits differ; docs/bridges.md says by how much. So a diff with
such sums is called lossy, although each of its steps is exact.

LoRA, arXiv 2106.09685; rank-stabilised scale, arXiv 2312.03732; the layout from PEFT 0.21.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.algebra.sums import Sums
from diffpack.bridges.bridge import Bridge, Import
from diffpack.bridges.formats.peft_adapter import GATHER, Adapter, is_adapter, open_adapter
from diffpack.bridges.formats.peft_changes import AdapterChanges
from diffpack.bridges.formats.peft_targets import note_layers_without
from diffpack.bridges.importing import BaseTensor, Whole, write_patch
from diffpack.errors import CheckpointError, CorruptFileError, UsageError, WrongBaseError
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import to_float

_KIND = "LORA"
_PAIRS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
_BIAS = ".lora_B.bias"
_WEIGHT = ".weight"
_UNKNOWN = (
    "use_dora", "use_qalora", "use_bdlora", "layer_replication", "trainable_token_indices", "target_parameters",
    "alora_invocation_tokens", "arrow_config", "velora_config", "monteclora_config", "kasa_config",
)  # fmt: skip
"""Settings that make the change something else than scale x B A (or, for some inputs only, nothing)."""
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva", "mica")
"""Ways to draw the factors that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA take a part of it."""
_BLOCK_ENTRIES = 1 << 18
"""Entries of the product made at a time: they stay in cache while the ranks are added."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Layer:
    """One adapted module: the suffixes of its factors' names, and its scale."""

    module: str
    first: str
    second: str
    scale: float

    @property
    def embedding(self) -> bool:
        return "embedding" in self.first


def _read(job: Import, file: BinaryIO) -> None:
    adapter = open_adapter(job.source, _KIND)
    used = [name for name in _UNKNOWN if adapter.config.get(name)]
    if used:
        raise UsageError(f"{job.source}: {listed(used)}: only plain LoRA, scale x B A, can be merged here")
    begun = adapter.config.get("init_lora_weights", True)
    if not isinstance(begun, bool | None) and begun not in _PLAIN_STARTS:
        raise UsageError(
            f"{job.source}: init_lora_weights {begun!r} changes the base itself: save the adapter in PEFT with "
            "path_initial_model_for_weight_conversion, which makes plain LoRA of it"
        )
    sums = Sums(job.clip)
    changes = AdapterChanges(adapter, job, sums)
    layers, biases = _layers(adapter)
    for layer in layers:
        changes.add(layer.module + _WEIGHT, layer.module + layer.first, partial(_merged, adapter, layer, sums))
    for layer in biases:
        changes.add(layer.module + ".bias", layer.module + layer.second, partial(_biased, adapter, layer, sums))
    taken = {layer.module + end for layer in [*layers, *biases] for end in (layer.first, layer.second)}
    for name in sorted(adapter.keys.keys() - taken):
        if "lora_" in name or "trainable_tokens" in name:
            raise UsageError(f"{job.source}: {printable(name)} is not of plain LoRA, scale x B A")
        changes.replace(name)
    makes = changes.makes()
    note_layers_without(job, adapter.config, {changes.target(layer.module + _WEIGHT) for layer in layers})
    recipe = {"merged": "scale x B A, in float64"}
    write_patch(job, file, makes, recipe, aliases=changes.ties(makes), sums=sums)


def _layers(adapter: Adapter) -> tuple[list[_Layer], list[_Layer]]:
    """The modules with factors of their weights, and those with a change of their biases."""
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


def _layer(adapter: Adapter, module: str, first: str, second: str) -> _Layer:
    where = f"{adapter.path}: {printable(module)}"
    if module + first not in adapter.keys or module + second not in adapter.keys:
        raise CorruptFileError(f"{where}: has only one of the factors A and B")
    rank = adapter.weights.info(adapter.keys[module + first]).shape[:1]
    if not rank or not rank[0]:
        raise CheckpointError(f"{where}: a factor without a rank: {GATHER}")
    alpha = _of_pattern(adapter, "alpha_pattern", module, adapter.config.get("lora_alpha", 8))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CorruptFileError(f"{where}: lora_alpha is {alpha!r}, not a number")
    divisor = math.sqrt(rank[0]) if adapter.config.get("use_rslora") else rank[0]
    return _Layer(module, first, second, alpha / divisor)


def _of_pattern(adapter: Adapter, key: str, module: str, default: object) -> object:
    """What a pattern says of a module. PEFT takes keys as regular expressions; here they are plain names.

    The rank needs no pattern, since the factors tell it. Raises `UsageError` for a key that is no plain name.
    """
    patterns = adapter.config.get(key) or {}
    if not isinstance(patterns, Mapping):
        raise CorruptFileError(f"{adapter.path}: {key} is not an object")
    for pattern, value in patterns.items():
        anchored = pattern.startswith("^")
        name = pattern.removeprefix("^").replace("\\.", ".").removesuffix("$")
        if not all(letter.isalnum() or letter in "._-" for letter in name):
            raise UsageError(
                f"{adapter.path}: {key} has the regular expression {printable(pattern)!r}: write it out as names"
            )
        if module == name or (not anchored and module.endswith("." + name)):
            return value
    return default


def _factor(adapter: Adapter, name: str) -> Matrix:
    """A factor as a float64 matrix of (its first dimension, the rest)."""
    info = adapter.weights.info(adapter.keys[name])
    if not info.dtype.arithmetic or len(info.shape) < 1:
        raise CorruptFileError(f"{adapter.path}: {printable(name)}: {info} is no factor")
    with np.errstate(invalid="ignore"):  # signalling NaNs; what is not finite is refused later
        values = to_float(adapter.weights.words(adapter.keys[name]), info.dtype).astype(np.float64)
    return values.reshape(info.shape[0], -1)


def _merged(adapter: Adapter, layer: _Layer, sums: Sums, base: BaseTensor) -> Whole:
    where = f"{adapter.path}: {printable(layer.module)}"
    info, before = base
    if not info.dtype.arithmetic:
        raise UsageError(f"{where}: nothing is added to {info.dtype.name} weights; give the base in its full precision")
    first, second = _factor(adapter, layer.module + layer.first), _factor(adapter, layer.module + layer.second)
    left, right = second, first
    transposed = layer.embedding or bool(adapter.config.get("fan_in_fan_out"))
    if transposed:
        left, right = first.T, second.T  # (B A) transposed
    shape = (left.shape[0], right.shape[1])
    rows = info.shape[0] if info.shape else 0
    if left.shape[1] != right.shape[0] or shape != (rows, info.words // rows if rows else 0):
        raise WrongBaseError(
            f"{where}: factors of {first.shape} and {second.shape} for the base's {info}", (layer.module,)
        )
    result = np.empty_like(before)
    step = max(1, _BLOCK_ENTRIES // max(shape[1], 1))
    for start in range(0, rows, step):
        delta = _product(left[start : start + step], right, layer.scale)
        if not np.isfinite(delta).all():
            raise CorruptFileError(f"{where}: its change is not finite")
        part = slice(start * shape[1], start * shape[1] + delta.size)
        result[part] = sums.add(layer.module + _WEIGHT, before[part], delta, info)
    return Whole(info, result, lossy=True)


def _product(left: Matrix, right: Matrix, scale: float) -> Matrix:
    """The product scale x left right, flat: rank by rank, so that no machine adds in another order."""
    total = np.zeros((left.shape[0], right.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(right.shape[0]):
            total += left[:, at : at + 1] * right[at]
        return (total * scale).reshape(-1)


def _biased(adapter: Adapter, layer: _Layer, sums: Sums, base: BaseTensor) -> Whole:
    where = f"{adapter.path}: {printable(layer.module)}.bias"
    info, before = base
    change = _factor(adapter, layer.module + _BIAS).reshape(-1) * layer.scale
    if change.size != info.words or not info.dtype.arithmetic or not np.isfinite(change).all():
        raise WrongBaseError(f"{where}: {change.size} finite numbers to add to the base's {info}", (layer.module,))
    return Whole(info, sums.add(f"{layer.module}.bias", before, change, info), lossy=True)


def _detect(path: Path) -> bool:
    return is_adapter(path, _KIND)


BRIDGE = Bridge(_detect, _read)

"""PEFT adapters: a folder with `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).

Tensors are named `base_model.model.<module>.<what>`; `modules_to_save` and trained biases stand under their plain
names and replace the base's tensors whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffpack.bridges.importing import BaseTensor, Make, Whole, needed
from diffpack.checkpoints import Checkpoint, open_checkpoint
from diffpack.errors import CheckpointError, CorruptFileError, UsageError, WrongBaseError
from diffpack.support.names import printable
from diffpack.tensors.reference import convert

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_PICKLED = "adapter_model.bin"
_WRAPPED = ".base_layer."  # where PEFT keeps a wrapped module's own parameters
_MOST_CONFIG = 1 << 24


@dataclass(frozen=True)
class Adapter:
    """An adapter's settings, and its tensors by name without the prefix (`keys` leads to the names in the file)."""

    path: Path
    config: Mapping[str, Any]
    weights: Checkpoint
    keys: Mapping[str, str]

    def replaced(self, name: str) -> tuple[str, Make]:
        """The base tensor's name for a tensor that replaces it, and the change."""
        return name.replace(_WRAPPED, "."), partial(_replaced, self, name)


def is_adapter(path: Path, kind: str) -> bool:
    """Tell whether a path is the folder of an adapter of a kind (`LORA`, `SHIRA`)."""
    config = path / CONFIG
    if not config.is_file() or config.stat().st_size > _MOST_CONFIG:
        return False
    try:
        settings = json.loads(config.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and settings.get("peft_type") == kind


def open_adapter(path: Path, kind: str) -> Adapter:
    """Open an adapter folder. Raises `CheckpointError`, `UsageError` if it is of another kind."""
    config = path / CONFIG
    if not config.is_file():
        raise CheckpointError(f"{path}: no {CONFIG}; an adapter is a folder")
    if not is_adapter(path, kind):
        raise UsageError(f"{config}: not of the kind {kind}")
    settings: dict[str, Any] = json.loads(config.read_bytes())
    weights = next((path / name for name in (WEIGHTS, _PICKLED) if (path / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{path}: no {WEIGHTS}")
    opened = open_checkpoint(weights)
    keys = {key.removeprefix(PREFIX): key for key in opened.tensors}
    if len(keys) < len(opened.tensors):
        raise CorruptFileError(f"{weights}: two tensors of one name")
    return Adapter(path, settings, opened, keys)


def _replaced(adapter: Adapter, name: str, base: BaseTensor | None) -> Whole:
    key = adapter.keys[name]
    where = f"{adapter.path}: {printable(key)}"
    info, _ = needed(base, where)
    stored = adapter.weights.info(key)
    if stored.shape != info.shape or (
        stored.dtype != info.dtype and not stored.dtype.arithmetic & info.dtype.arithmetic
    ):
        raise WrongBaseError(f"{where}: is {stored}, the base's tensor {info}", (name,))
    return Whole(info, convert(adapter.weights.words(key), stored.dtype, info.dtype))

"""PEFT adapters: a folder with `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).

Tensors are named `base_model.model.<module>.<what>`; `modules_to_save` and trained biases stand under their plain
names and replace the base's tensors whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpack.checkpoints import Checkpoint, open_checkpoint
from diffpack.errors import CheckpointError, CorruptFileError, UsageError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_PICKLED = "adapter_model.bin"
_MOST_CONFIG = 1 << 24
GATHER = (
    "DeepSpeed ZeRO-3 and FSDP leave each process a part of the parameters, and an adapter saved then has none; save "
    "it within deepspeed.zero.GatheredParameters (or FSDP's summon_full_params), or with "
    "stage3_gather_16bit_weights_on_model_save"
)
"""Why an adapter has no numbers, and how it is saved with them."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's settings, and its tensors by name without the prefix (`keys` leads to the names in the file)."""

    path: Path
    config: Mapping[str, Any]
    weights: Checkpoint
    keys: Mapping[str, str]


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
    """Open an adapter folder. Raises `CheckpointError` (nothing in it, too), `UsageError` if it is of another kind."""
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
    if not opened.tensors:
        raise CheckpointError(f"{weights}: an adapter without tensors: {GATHER}")
    keys = {key.removeprefix(PREFIX): key for key in opened.tensors}
    if len(keys) < len(opened.tensors):
        raise CorruptFileError(f"{weights}: two tensors of one name")
    return Adapter(path, settings, opened, keys)

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

from diffpack.bridges.bridge import Export
from diffpack.bridges.formats.peft_keys import plain_keys
from diffpack.checkpoints import Checkpoint, open_checkpoint
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.checkpoints.safetensors_writer import SafetensorsWriter
from diffpack.errors import CheckpointError, UsageError
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_READ = ("LORA", "SHIRA")
_MOST_CONFIG = 1 << 24
_NAMES = ("modules_to_save", "target_modules", "exclude_modules", "layers_pattern")
"""Settings that name modules."""
GATHER = (
    "DeepSpeed ZeRO-3 and FSDP leave each process a part of the parameters, and an adapter saved then has none; save "
    "it within deepspeed.zero.GatheredParameters (or FSDP's summon_full_params), or with "
    "stage3_gather_16bit_weights_on_model_save"
)
"""Why an adapter has no numbers, and how it is saved with them."""
MERGE = (
    "merge it in PEFT (model.merge_and_unload().save_pretrained(FOLDER)) and extract the difference: "
    "diffpack extract --base BASE --tuned FOLDER"
)
"""What leads to a diff of any adapter."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's settings, and its tensors by name without the prefix (`keys` leads to the names in the file)."""

    path: Path
    config: Mapping[str, Any]
    weights: Checkpoint
    keys: Mapping[str, str]

    @property
    def made_for(self) -> str:
        """What its settings say it was trained on, as the end of a message; may be empty."""
        base = self.config.get("base_model_name_or_path")
        return f"; the adapter says it is for {printable(base)}" if isinstance(base, str) and base else ""


def _settings(config: Path) -> dict[str, Any] | None:
    """What an `adapter_config.json` says; None if it is no JSON object."""
    if config.stat().st_size > _MOST_CONFIG:
        return None
    try:
        settings = json.loads(config.read_bytes())
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def is_adapter(path: Path, kind: str) -> bool:
    """Tell whether a path is the folder of an adapter of a kind (`LORA`, `SHIRA`)."""
    settings = _settings(path / CONFIG) if (path / CONFIG).is_file() else None
    return settings is not None and settings.get("peft_type") == kind


def open_adapter(path: Path, kind: str) -> Adapter:
    """Open an adapter folder. Raises `CheckpointError` (nothing in it, too), `UsageError` if it is of another kind."""
    wrong = what_is_wrong(path)
    if wrong is not None:
        raise wrong
    config = path / CONFIG
    settings = _settings(config) if config.is_file() else None
    if settings is None:
        raise CheckpointError(f"{path}: no {CONFIG}; an adapter is a folder with one")
    if settings.get("peft_type") != kind:
        raise UsageError(f"{config}: not of the kind {kind}")
    strange = [key for key in _NAMES if not isinstance(settings.get(key), str | list | None)]
    if strange:
        raise CheckpointError(f"{config}: damaged: {listed(strange)}: neither a name nor a list of names")
    weights = next((path / name for name in (WEIGHTS, _PICKLED) if (path / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{path}: no {WEIGHTS}; save_pretrained of a PEFT model writes it beside {CONFIG}")
    opened = open_checkpoint(weights)
    if not opened.tensors:
        raise CheckpointError(f"{weights}: an adapter without tensors: {GATHER}")
    return Adapter(path, settings, opened, plain_keys(opened.tensors, str(weights)))


def what_is_wrong(path: Path) -> CheckpointError | UsageError | None:
    """Say what is wrong with something that looks like part of an adapter, or one that is not read; None for others."""
    if path.is_file() and path.name.startswith("adapter_"):
        return UsageError(f"{path}: one file of an adapter; give its folder, {path.parent}")
    if not path.is_dir():
        return None
    config = path / CONFIG
    if config.is_file():
        settings = _settings(config)
        if settings is None:
            return CheckpointError(f"{config}: no JSON object; copy it anew from where the adapter was saved")
        kind = settings.get("peft_type")
        if kind in _READ:
            return None
        known = " and ".join(_READ)
        return UsageError(f"{config}: an adapter of the kind {kind!r}; {known} are read here; {MERGE}")
    if any(path.glob("adapter_model*")):
        return CheckpointError(f"{path}: an adapter without {CONFIG}, which has its scale: copy it here, too")
    inside = sorted(item.parent.name for item in path.glob(f"*/{CONFIG}"))
    if inside and not any(path.glob("*.safetensors")):
        return UsageError(f"{path}: a folder of adapters; give one: {listed([printable(name) for name in inside])}")
    return None


def write_adapter(job: Export, tensors: Mapping[str, tuple[TensorInfo, Words]], settings: Mapping[str, object]) -> None:
    """Write an adapter's folder, whole or not at all."""
    with job.folder() as folder:
        header = make_header({key: info for key, (info, _) in tensors.items()}, {"format": "pt"})
        with SafetensorsWriter([(folder / WEIGHTS, header)]) as writer:
            for key, (_, words) in tensors.items():
                writer.write(key, 0, words)
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")

"""LoRA through PEFT (Hu et al. 2022, arXiv 2106.09685), for comparison: rank 8, query and value, alpha = 2 x rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from diffpack.errors import MissingDependencyError, UsageError
from diffpack.train.loop.stage import DenseStage, Stage
from diffpack.train.methods.defaults import LORA_LR, epochs_of, lr_of
from diffpack.train.task import Task

RANK = 8
TARGETS = ("query", "value")
_PART = ".lora_"
_ALPHA = 2  # times the rank: what the product is multiplied by, times the rank


def lora(task: Task) -> Sequence[Stage]:
    """Wrap the targets and train what PEFT adds, and the head."""
    rank = task.options.size or RANK
    builder = {"kind": "lora", "rank": rank, "alpha": _ALPHA * rank, "targets": list(TARGETS)}
    torch.manual_seed(task.options.seed)
    rebuild(task.model, builder)
    task.builder.update(builder)
    return [
        DenseStage(
            epochs_of(task.options),
            lr_of(task.options, LORA_LR),
            lambda task: [name for name in task.body if _PART in name],
        )
    ]


def rebuild(model: nn.Module, builder: dict[str, Any]) -> None:
    """Wrap the modules that a file's metadata describes.

    Raises `MissingDependencyError` without PEFT, `UsageError` if the model has no such modules.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingDependencyError("peft", "train", "the method lora") from None
    rank = int(builder["rank"])
    config = LoraConfig(r=rank, lora_alpha=builder.get("alpha", _ALPHA * rank), target_modules=list(builder["targets"]))
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:  # PEFT's word for no module of these names
        raise UsageError(f"{type(model).__name__}: lora does not fit: {error}") from None

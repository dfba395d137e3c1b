"""Adapters of the tiny llama that PEFT trains, imported, and compared with what PEFT merges."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peft

import diffpack

Arrays = dict[str, npt.NDArray[Any]]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PREFIX = "base_model.model."


def lora(**settings: Any) -> peft.LoraConfig:
    """LoRA of rank 2 that is random from the start."""
    return peft.LoraConfig(**{"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings})


def imported(base: Path, adapter: Path, **options: Any) -> tuple[diffpack.Converted, Arrays]:
    """What an adapter is as a diff, and the model that this gives."""
    done = diffpack.convert(adapter, base=base / "model.safetensors", **options)
    return done, diffpack.load(base / "model.safetensors", done.diff)


def same(found: Arrays, merged: Arrays, *, without: Iterable[str] = ()) -> None:
    """Every tensor is PEFT's but for rounding; `without` are names that PEFT has for tied ones."""
    assert found.keys() | set(without) == merged.keys()
    for name, array in found.items():
        assert array.shape == merged[name].shape, name
        assert np.abs(array.astype(np.float32) - merged[name]).max() <= 1e-6 * max(1, np.abs(merged[name]).max()), name

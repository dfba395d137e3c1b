"""What is switched: sparse tasks on the real base, and PEFT's adapters with as many numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import diffpack
from benchmarks import pairs

DENSITY = 0.005
RANK = 3
"""Of a LoRA on all linear layers: 124,416 numbers, beside 113,000 changed entries; SHiRA counts by the same rank."""
TARGETS = ["query", "key", "value", "dense"]
"""The linear layers of a BERT, by the last part of their names."""


def tasks(base: Path, folder: Path, count: int) -> list[Path]:
    """Diffs that change 0.5 % of the base's float32 entries at random places; those that are there stay."""
    files = [folder / f"task{at}.dpk" for at in range(count)]
    missing = [at for at, file in enumerate(files) if not file.exists()]
    arrays = pairs.read(base) if missing else {}
    for at in missing:
        draw = np.random.default_rng(at)
        tuned = {name: array.copy() for name, array in arrays.items()}
        for array in tuned.values():
            if array.dtype == np.float32:
                flat = array.reshape(-1)
                where = np.flatnonzero(draw.random(flat.size) < DENSITY)
                flat[where] += draw.normal(0, pairs.SPARSE_SIGMA, where.size).astype(np.float32)
        diffpack.extract(base, tuned, files[at])
    return files


def adapters(base: Path, folder: Path, kind: str, count: int) -> list[Path]:
    """Adapters of PEFT's, "lora" or "shira", of random numbers; those that are there stay."""
    from peft import LoraConfig, ShiraConfig, get_peft_model
    from transformers import BertModel

    made = [folder / f"{kind}{at}" for at in range(count)]
    for at, target in enumerate(made):
        if target.exists():
            continue
        settings = {"r": RANK, "target_modules": TARGETS}
        config = LoraConfig(**settings) if kind == "lora" else ShiraConfig(**settings, random_seed=at)
        model = get_peft_model(BertModel.from_pretrained(base.parent), config)
        generator = torch.Generator().manual_seed(at)
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value.copy_(torch.randn(value.shape, generator=generator) * pairs.SPARSE_SIGMA)
        model.save_pretrained(str(target))
    return made

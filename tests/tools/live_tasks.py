"""Small modules in memory, the base files they were made from, and tasks on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import diffpack

Bits = dict[str, np.ndarray[Any, Any]]


class Layered(nn.Module):
    """Two linear layers between a table and a norm, a buffer, and an output tied to the table."""

    def __init__(self, width: int = 24, words: int = 40, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.hidden = nn.Linear(width, 2 * width)
        self.back = nn.Linear(2 * width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, words, bias=False)
        self.output.weight = self.table.weight
        self.register_buffer("steps", torch.arange(5))
        self.to(dtype)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.table(tokens)
        answer: torch.Tensor = self.output(self.norm(x + self.back(torch.relu(self.hidden(x)))))
        return answer


def layered(seed: int = 0, dtype: torch.dtype = torch.float32) -> Layered:
    torch.manual_seed(seed)
    return Layered(dtype=dtype).eval()


def changed(state: Mapping[str, torch.Tensor], seed: int, density: float = 0.05) -> dict[str, torch.Tensor]:
    """A copy of a state with noise on some of the floats of each tensor; ties stay ties."""
    generator = torch.Generator().manual_seed(seed)
    copies: dict[int, torch.Tensor] = {}
    for value in state.values():
        if value.data_ptr() in copies:
            continue
        copy = value.clone()
        if copy.is_floating_point():
            mask = torch.rand(copy.shape, generator=generator) < density
            noise = torch.randn(copy.shape, generator=generator) * 0.1
            copy = (copy.float() + mask * noise).to(copy.dtype)
        copies[value.data_ptr()] = copy
    return {name: copies[value.data_ptr()] for name, value in state.items()}


def write(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    """Write a state to a safetensors file, tied tensors once, under their first name."""
    seen: set[int] = set()
    kept = {}
    for name, value in state.items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            kept[name] = value.contiguous()
    save_file(kept, path)
    return path


def tasks(base: Path, folder: Path, count: int = 3, **options: Any) -> list[Path]:
    """Diffs of changed copies of a file of tensors."""
    from safetensors.torch import load_file

    made = []
    for seed in range(1, count + 1):
        tuned = write(folder / f"tuned{seed}.safetensors", changed(load_file(base), seed))
        made.append(folder / f"task{seed}.dpk")
        diffpack.extract(base, tuned, made[-1], **options)
    return made


def bits(state: Mapping[str, torch.Tensor]) -> Bits:
    """The bytes of each tensor of a state, copied."""
    return {name: value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().copy()
            for name, value in state.items()}  # fmt: skip


def same(state: Mapping[str, torch.Tensor], expected: Bits) -> bool:
    """Whether a state has the bytes that are expected, of all that are."""
    found = bits(state)
    return all(np.array_equal(found[name], expected[name]) for name in expected)


def result_bits(base: Path, diff: Path) -> Bits:
    """The bytes of each tensor of a diff's result, as `load` makes them."""
    return {name: np.frombuffer(value.tobytes(), np.uint8) for name, value in diffpack.load(base, diff).items()}

"""States of torch tensors of every dtype, some entries of them changed, and what equality means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
DTYPES = [
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32",
    "float64", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2",
]  # fmt: skip
"""Every dtype of torch's that a diff can hold."""


def random_state(dtypes: Sequence[str] = DTYPES, seed: int = 0) -> State:
    """A matrix of random bits of each dtype by its name, and a tensor without dimensions and one without entries."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name in dtypes:
        dtype = getattr(torch, name)
        octets = torch.randint(0, 2 if name == "bool" else 256, (30 * 40 * dtype.itemsize,), generator=generator)
        state[name] = octets.to(torch.uint8).view(dtype).reshape(30, 40)
    return state | {"scalar": torch.tensor(0.5), "empty": torch.empty(0, 7)}


def changed(state: Mapping[str, Tensor], density: float, seed: int = 1) -> State:
    """Copies with the bits of some entries changed."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in state.items():
        mask = torch.rand(value.shape, generator=generator) < density
        octets = value.cpu().contiguous().reshape(-1).view(torch.uint8).clone()
        octets ^= mask.reshape(-1, 1).expand(-1, value.element_size()).reshape(-1).to(torch.uint8)
        found[name] = octets.view(value.dtype).reshape(value.shape).to(value.device)
    return found


def bits(state: Mapping[str, Any]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """Names, dtypes, shapes and bytes."""
    found = {}
    for name, value in state.items():
        plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        found[name] = plain.dtype, tuple(plain.shape), plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return found

"""The optimiser all methods train with, and its step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

CLIP = 1.0
"""The norm gradients are clipped to: the diff pruning code's value, and the usual one for BERT."""


def adamw(values: Iterable[Tensor], lr: float, eps: float = 1e-8) -> torch.optim.Optimizer:
    """AdamW without weight decay, in its fused form, which keeps no temporaries."""
    return torch.optim.AdamW(values, lr=lr, eps=eps, weight_decay=0.0, fused=True)


def values_of(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """All tensors an optimiser trains."""
    return [value for group in optimiser.param_groups for value in group["params"]]


def clip_and_step(optimiser: torch.optim.Optimizer, norm: float | None = CLIP) -> None:
    """Scale all gradients down to a norm of at most `norm` together (None: leave them), step, drop them."""
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(values_of(optimiser), norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)

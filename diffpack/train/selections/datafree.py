"""Selections that need no data: anyone who has the base can draw the same positions.

Random (SHiRA-Rand: Bhardwaj et al. 2024, arXiv 2406.13175), the smallest weights (PaFi: Liao, Meng, Monz 2023, arXiv
2305.16742) and the largest (SHiRA-WM), each over all tensors together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffpack.train.selections.top import top_k


def at_random(parameters: Mapping[str, Tensor], k: int, seed: int) -> dict[str, Tensor]:
    """Pick k entries uniformly, each tensor getting its share of k by size."""
    sizes = {name: value.numel() for name, value in parameters.items()}
    total = sum(sizes.values())
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    passed = taken = 0
    for name, size in sizes.items():
        passed += size
        share = k * passed // total - taken  # shares add up to k whatever the rounding
        taken += share
        if share:  # the clone lets go of the permutation, which the slice would keep alive
            chosen[name] = torch.randperm(size, generator=generator)[:share].clone().sort().values
    return chosen


def by_weight(parameters: Mapping[str, Tensor], k: int, *, largest: bool) -> dict[str, Tensor]:
    """Pick the k entries of the largest (or smallest) magnitude."""
    sign = 1.0 if largest else -1.0
    return top_k(parameters, lambda name: sign * parameters[name].detach().float().abs(), k)

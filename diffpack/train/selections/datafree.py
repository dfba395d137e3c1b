"""Selections that need no data: the base or a seed tells the positions, so a file need not store them.

Random (SHiRA-Rand: Bhardwaj et al. 2024, arXiv 2406.13175), the smallest weights (PaFi: Liao, Meng, Monz 2023, arXiv
2305.16742) and the largest (SHiRA-WM), each over all tensors together. How many entries each tensor gets is told
here, which ones by the rule of the format.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from diffpack.format.positions import rule_words
from diffpack.format.positions.rule_words import Rule
from diffpack.tensors.dtypes import Words
from diffpack.train.model import plain_name
from diffpack.train.selections.top import top_k

_BITS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32), 8: (torch.int64, np.uint64)}


def rule_of(selection: str, seed: int) -> Rule | None:
    """The rule a selection is, None if it needs data."""
    return Rule.parse(f"random {seed}" if selection == "random" else selection)


def counts_of(chosen: Rule, parameters: Mapping[str, Tensor], k: int) -> dict[str, int]:
    """How many entries of each tensor are among the k: of random ones its share by size."""
    if chosen.by_weight:
        sign = 1.0 if chosen.kind == "largest" else -1.0
        best = top_k(parameters, lambda name: sign * parameters[name].detach().float().abs(), k)
        return {name: where.numel() for name, where in best.items()}
    total = sum(value.numel() for value in parameters.values())
    counts = {}
    passed = taken = 0
    for name, value in parameters.items():
        passed += value.numel()
        share = k * passed // total - taken  # shares add up to k whatever the rounding
        taken += share
        if share:
            counts[name] = share
    return counts


def at_random(parameters: Mapping[str, Tensor], k: int, seed: int) -> dict[str, Tensor]:
    """Pick k entries uniformly, each tensor getting its share of k by size."""
    drawn = Rule("random", seed)
    counts = counts_of(drawn, parameters, k)
    return {
        name: torch.from_numpy(rule_words.at_random(drawn, plain_name(name), parameters[name].numel(), count))
        for name, count in counts.items()
    }


def by_weight(parameters: Mapping[str, Tensor], k: int, *, largest: bool) -> dict[str, Tensor]:
    """Pick the k entries of the largest (or smallest) magnitude."""
    chosen = Rule("largest" if largest else "smallest")
    counts = counts_of(chosen, parameters, k)
    return {
        name: torch.from_numpy(rule_words.by_weight(chosen, _words(parameters[name]), count))
        for name, count in counts.items()
    }


def _words(value: Tensor) -> Words:
    signed, unsigned = _BITS[value.element_size()]
    return value.detach().cpu().contiguous().view(-1).view(signed).numpy().view(unsigned)

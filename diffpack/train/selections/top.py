"""The k best entries over many tensors, tensor by tensor, in memory for k of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Scores = Callable[[str], Tensor]
"""Gives the score of every entry of a parameter, by name; asked for one tensor at a time."""


def top_k(names: Iterable[str], scores: Scores, k: int, floor: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """Give the positions of the k highest scores of all tensors together, of each tensor at least `floor[name]`.

    The result has each tensor of which something is taken: int64, sorted. Scores are read as float32; one that is
    not a number counts as the lowest.
    """
    order = list(names)
    sure: dict[str, Tensor] = {}
    best = torch.empty(0)
    owner = torch.empty(0, dtype=torch.int64)
    place = torch.empty(0, dtype=torch.int64)
    open_ = k - sum((floor or {}).values())
    for at, name in enumerate(order):
        flat = scores(name).detach().reshape(-1).float().nan_to_num(nan=-torch.inf)
        least = min((floor or {}).get(name, 0), flat.numel())
        if least:
            sure[name] = flat.topk(least).indices
            flat = flat.clone()
            flat[sure[name]] = -torch.inf
        found = flat.topk(max(0, min(open_, flat.numel() - least)))
        best = torch.cat([best, found.values])
        owner = torch.cat([owner, torch.full_like(found.indices, at)])
        place = torch.cat([place, found.indices])
        if best.numel() > open_:
            kept = best.topk(max(0, open_)).indices
            best, owner, place = best[kept], owner[kept], place[kept]
    chosen = {}
    for at, name in enumerate(order):
        positions = torch.cat([sure.get(name, torch.empty(0, dtype=torch.int64)), place[owner == at]])
        if positions.numel():
            chosen[name] = positions.sort().values
    return chosen


def floors(sizes: Mapping[str, int], k: int, part: float) -> dict[str, int]:
    """Give each tensor its sure share of a part of the budget: proportional to its size, rounded down."""
    total = sum(sizes.values())
    return {name: int(part * k * size / total) for name, size in sizes.items()}

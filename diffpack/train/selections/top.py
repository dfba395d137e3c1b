"""The k best entries over many tensors, tensor by tensor, in memory for k of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

CHUNK = 1 << 20
"""Entries looked at together: torch's own topk takes 16 bytes of memory for each."""
Scores = Callable[[str], Tensor]
"""Gives the score of every entry of a parameter, by name; asked for one tensor at a time."""


def top_k(names: Iterable[str], scores: Scores, k: int, floor: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """The positions of the k highest scores of all tensors together, of each tensor at least `floor[name]`.

    The result has each tensor of which something is taken: int64, sorted. Scores are read as float32; one that is
    not a number counts as the lowest.
    """
    order = list(names)
    sure: dict[str, Tensor] = {}
    best = _Best(max(0, k - sum((floor or {}).values())))
    for at, name in enumerate(order):
        flat = scores(name).detach().reshape(-1)
        least = min((floor or {}).get(name, 0), flat.numel())
        if least:
            own = _Best(least)
            own.look(flat, at)
            sure[name] = own.place.sort().values
        best.look(flat, at, sure.get(name))
    chosen = {}
    for at, name in enumerate(order):
        positions = torch.cat([sure.get(name, torch.empty(0, dtype=torch.int64)), best.place[best.owner == at]])
        if positions.numel():
            chosen[name] = positions.sort().values
    return chosen


class _Best:
    """The highest scores seen so far, and where they were: number of the tensor, flat position in it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._score = torch.empty(0)
        self.owner = torch.empty(0, dtype=torch.int64)
        self.place = torch.empty(0, dtype=torch.int64)

    def look(self, flat: Tensor, owner: int, without: Tensor | None = None) -> None:
        """Take what is higher than the lowest kept so far, chunk by chunk; positions in `without` are not for it."""
        for start in range(0, flat.numel() if self._count else 0, CHUNK):
            part = flat[start : start + CHUNK].float().nan_to_num(nan=-torch.inf)
            place = torch.arange(part.numel())
            if without is not None:
                taken = without[(without >= start) & (without < start + CHUNK)] - start
                keep = torch.ones(part.numel(), dtype=torch.bool)
                keep[taken] = False
                part, place = part[keep], place[keep]
            if self._score.numel() == self._count:
                higher = (part > self._score.min()).nonzero().view(-1)
                part, place = part[higher], place[higher]
            self._score = torch.cat([self._score, part])
            self.place = torch.cat([self.place, place + start])
            self.owner = torch.cat([self.owner, torch.full_like(place, owner)])
            if self._score.numel() > self._count:
                kept = self._score.topk(self._count).indices
                self._score, self.owner, self.place = self._score[kept], self.owner[kept], self.place[kept]


def floors(sizes: Mapping[str, int], k: int, part: float) -> dict[str, int]:
    """Each tensor's sure share of a part of the budget: proportional to its size, rounded down."""
    total = sum(sizes.values())
    return {name: int(part * k * size / total) for name, size in sizes.items()}

"""Regrowth (SpIEL): positions that move while they are trained.

Ansell et al. 2024, arXiv 2401.16405, section 3: start at random; every so many steps drop the entries whose values
changed least since the last time, put them back to the base's value, and grow as many where the gradient is
largest. Each tensor keeps its number of entries. The paper sums gradients over several steps for growing; here the one
batch before each regrowth counts, which keeps the dense gradient no longer than its hook.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffpack.train.tuners.slot import Slot

INTERVAL = 20
"""Steps between regrowths (the paper's S)."""
RATE = 0.2
"""Part of the entries regrown at first; falls linearly to 0 at the end of training (the paper's xi)."""


class Regrowth:
    """Moves one slot's positions. `last` holds its values at the last regrowth."""

    def __init__(self, slot: Slot) -> None:
        assert slot.positions is not None
        self.slot = slot
        self.last = slot.values.detach().clone()
        self.candidates = torch.empty(0, dtype=torch.int64)
        self.wanted = 0

    def prepare(self, rate: float) -> None:
        """Announce that the next gradient is to propose `rate` of the entries."""
        self.wanted = round(rate * self.slot.values.numel())

    def propose(self, parameter: Tensor) -> None:
        """Remember where the gradient is largest outside the positions (a hook that runs before the slot's own)."""
        if not self.wanted or parameter.grad is None:
            return
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        size = gradient.abs().reshape(-1)
        assert self.slot.positions is not None
        size[self.slot.positions] = -1
        largest = size.topk(min(self.wanted, size.numel() - self.slot.values.numel()))
        self.candidates = largest.indices[largest.values > 0]

    def regrow(self, optimiser: torch.optim.Optimizer) -> int:
        """Drop as many entries as there are candidates, take those instead; give how many."""
        slot, count = self.slot, self.candidates.numel()
        self.wanted = 0
        if count:
            dropped = (slot.values.detach() - self.last).abs().topk(count, largest=False).indices
            order = slot.move(dropped, self.candidates)
            _move_state(optimiser.state.get(slot.values, {}), dropped, order)
            self.candidates = torch.empty(0, dtype=torch.int64)
        self.last = slot.values.detach().clone()
        return count


def _move_state(state: dict[str, Tensor], dropped: Tensor, order: Tensor) -> None:
    """Let the optimiser's moments follow their entries; new entries start without any."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.shape == order.shape:
            value[dropped] = 0
            state[name] = value[order]

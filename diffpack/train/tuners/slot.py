"""One tensor of which some entries are trained: where they lie, their values, the way to and from the module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffpack.errors import UsageError


@dataclass
class Slot:
    """One tuned tensor: its name, its flat positions (None: all) and the compact vector that is trained.

    `values` is float32 (float64 for float64): for bf16 and f16 weights it is the master copy.
    """

    name: str
    parameter: nn.Parameter
    positions: Tensor | None
    values: nn.Parameter
    watch: Callable[[Tensor], None] | None = None
    """Shown the parameter while its whole gradient lives (regrowth looks there for better entries)."""

    def gather(self, source: Tensor) -> Tensor:
        """The entries of a tensor of the parameter's shape that this slot trains, in the master's dtype."""
        flat = source.detach().reshape(-1)
        picked = flat.clone() if self.positions is None else flat[self.positions]
        return picked.to(self.values.dtype)

    def _gather_rows(self, gradient: Tensor) -> Tensor:
        """The same of an embedding's gradient, which holds the rows of the batch's tokens alone."""
        assert self.positions is not None
        gradient = gradient.coalesce()
        rows, row_values = gradient.indices()[0], gradient.values()
        picked = torch.zeros_like(self.values)
        if rows.numel():
            row = self.positions // row_values.shape[1]
            at = torch.searchsorted(rows, row).clamp_(max=rows.numel() - 1)
            there = (rows[at] == row).nonzero().view(-1)
            column = self.positions[there] % row_values.shape[1]
            picked[there] = row_values[at[there], column].to(picked.dtype)
        return picked

    def scatter(self) -> None:
        """Write the values to their places, rounded to nearest even into the parameter's dtype."""
        flat = self.parameter.detach().view(-1)
        rounded = self.values.detach().to(flat.dtype)
        if self.positions is None:
            flat.copy_(rounded)
        else:
            flat[self.positions] = rounded

    def take_gradient(self, parameter: Tensor) -> None:
        """Add the gradient's chosen entries to the compact one and let go of the rest (a post-accumulate hook)."""
        assert parameter.grad is not None
        if self.watch is not None:
            self.watch(parameter)
        gradient = self._gather_rows(parameter.grad) if parameter.grad.is_sparse else self.gather(parameter.grad)
        self.values.grad = gradient if self.values.grad is None else self.values.grad.add_(gradient)
        parameter.grad = None


def make_slot(name: str, parameter: nn.Parameter, positions: Tensor | None) -> Slot:
    """Make the slot of a parameter, its values gathered. Raises `UsageError` for positions that cannot be."""
    if positions is not None:
        positions = positions.to(parameter.device, torch.int64)
        size = parameter.numel()
        rising = positions.numel() < 2 or bool((positions[1:] > positions[:-1]).all())
        inside = positions.numel() == 0 or (int(positions[0]) >= 0 and int(positions[-1]) < size)
        if positions.dim() != 1 or not rising or not inside:
            raise UsageError(f"{name!r}: positions must be 1-D, sorted, unique and below {size}")
    master = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    slot = Slot(name, parameter, positions, nn.Parameter(torch.empty(0, dtype=master)))
    slot.values = nn.Parameter(slot.gather(parameter))
    return slot

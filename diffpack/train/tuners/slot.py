"""One tensor of which some entries are trained: where they lie, their values, the way to and from the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffpack.errors import UsageError

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Slot:
    """One tuned tensor: its name, its flat positions (None: all) and the compact vector that is trained.

    `values` is float32 (float64 for float64): for bf16 and f16 weights it is the master copy. `base` and `left` have
    the parameter's dtype: its entries at the positions when the slot was made (with positions None nothing: it has no
    outside), and as the slot last left them. By `left` it sees that something else has written there since.
    """

    name: str
    parameter: nn.Parameter
    positions: Tensor | None
    values: nn.Parameter
    watch: Callable[[Tensor], None] | None = None
    """Shown the parameter while its whole gradient lives (regrowth looks there for better entries)."""
    base: Tensor = field(init=False)
    left: Tensor = field(init=False)
    version: int = field(init=False)
    """The parameter's count of writes after the slot's own last one."""

    def __post_init__(self) -> None:
        self.keep()

    def keep(self) -> None:
        """Take the entries that lie at the positions now for the base's, and for what the slot left there."""
        self._note(self._entries(self.parameter))
        self.base = self.left if self.positions is not None else self.left.new_empty(0)

    def gather(self, source: Tensor) -> Tensor:
        """The entries of a tensor of the parameter's shape that this slot trains, in the master's dtype."""
        return self._entries(source).to(self.values.dtype)

    def _entries(self, source: Tensor) -> Tensor:
        flat = source.detach().reshape(-1)
        return flat.clone() if self.positions is None else flat[self.positions]

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
        flat, rounded = self.parameter.detach().view(-1), self._rounded()
        if self.positions is None:
            flat.copy_(rounded)
        else:
            flat[self.positions] = rounded
        self._note(rounded)

    def _rounded(self) -> Tensor:
        return self.values.detach().to(self.parameter.dtype, copy=True)

    def _note(self, left: Tensor) -> None:
        """Remember the entries that lie at the positions now; the tensor is kept."""
        self.left, self.version = left, self.parameter._version

    def require_place(self) -> None:
        """Raise `UsageError` if the parameter has another dtype or lies elsewhere than when the slot was made."""
        now, made = (self.parameter.dtype, self.parameter.device), (self.left.dtype, self.left.device)
        if now != made:
            raise UsageError(
                f"{self.name!r} was {made[0]} on {made[1]} when the tuner was made and is {now[0]} on {now[1]} now; "
                "move and cast the model first, then make the tuner"
            )

    def overwritten(self) -> Tensor:
        """Whether other bits lie at the positions than the slot left there: one boolean, where the parameter is."""
        return (words(self._entries(self.parameter)) != words(self.left)).any()

    def take_over(self) -> None:
        """Take the entries that something else wrote for the values. Raises as `current`."""
        self.values.detach().copy_(self.current())
        self._note(self._entries(self.parameter))

    def current(self) -> Tensor:
        """The values, with the entries that something else wrote in place of those it wrote over.

        The others keep their masters' bits. Raises `UsageError` if the values have been trained, but not written, when
        something else wrote.
        """
        there = self._entries(self.parameter)
        other = words(there) != words(self.left)
        if not other.any():
            return self.values.detach()
        if not torch.equal(words(self._rounded()), words(self.left)):
            raise UsageError(
                f"{self.name!r}: something else wrote the module's weights between the optimiser's step and the "
                "tuner's write; load weights before a step (attach the optimiser, and nothing comes between)"
            )
        return torch.where(other, there.to(self.values.dtype), self.values.detach())

    def move(self, dropped: Tensor, grown: Tensor) -> Tensor:
        """Train other entries: those at the indices `dropped` go back to the base, the positions `grown` come instead.

        Gives the order of the entries afterwards: what lies beside the values, changed at `dropped`, is sorted by it.
        """
        assert self.positions is not None
        values, flat = self.values.detach(), self.parameter.detach().view(-1)
        flat[self.positions[dropped]] = self.base[dropped]
        positions, base = self.positions.clone(), self.base.clone()
        positions[dropped], base[dropped] = grown, flat[grown]
        values[dropped] = flat[grown].to(values.dtype)
        self.positions, order = positions.sort()
        values.copy_(values[order])
        self.base = base[order]
        self._note(self._entries(self.parameter))
        return order

    def take_gradient(self, parameter: Tensor) -> None:
        """Add the gradient's chosen entries to the compact one and let go of the rest (a post-accumulate hook)."""
        assert parameter.grad is not None
        self.require_place()
        if self.watch is not None:
            self.watch(parameter)
        gradient = self._gather_rows(parameter.grad) if parameter.grad.is_sparse else self.gather(parameter.grad)
        self.values.grad = gradient if self.values.grad is None else self.values.grad.add_(gradient)
        parameter.grad = None

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"positions": self.positions, "values": self.current().clone(), "base": self.base}

    def load(self, state: Mapping[str, Any]) -> None:
        """Train a state's entries instead, and write its values; those trained until now go back to the base.

        The vector stays the same object, so that an optimiser goes on with it. Raises nothing: the state was checked.
        """
        device = self.parameter.device
        if self.positions is not None:
            self.parameter.detach().view(-1)[self.positions] = self.base
        self.positions = None if state["positions"] is None else state["positions"].to(device)
        self.values.data = state["values"].to(device, self.values.dtype, copy=True)
        self.base = state["base"].to(device, self.parameter.dtype, copy=True)
        self.values.grad = None
        self.scatter()

    def holds(self, state: Mapping[str, Any], what: str) -> bool:
        """Whether the parameter holds a state's "values" (rounded), or its "base", at its positions."""
        positions, flat = state["positions"], self.parameter.detach().reshape(-1)
        if positions is None and what == "base":
            return True  # no base is kept of what is trained whole
        there = flat if positions is None else flat[positions.to(flat.device)]
        return torch.equal(words(there), words(state[what].to(flat.device).to(flat.dtype)))


def make_slot(name: str, parameter: nn.Parameter, positions: Tensor | None) -> Slot:
    """Make the slot of a parameter, its values gathered. Raises `UsageError` for positions that cannot be."""
    if positions is not None:
        positions = positions.to(parameter.device, torch.int64)
        require_positions(name, positions, parameter.numel())
    master = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    slot = Slot(name, parameter, positions, nn.Parameter(torch.empty(0, dtype=master)))
    slot.values = nn.Parameter(slot.gather(parameter))
    return slot


def require_positions(name: str, positions: Tensor, size: int) -> None:
    """Raise `UsageError` unless they are sorted, unique and within a tensor of `size` entries."""
    if positions.dim() != 1:
        raise UsageError(f"{name!r}: positions must be 1-D, not of the shape {list(positions.shape)}")
    rising = positions.numel() < 2 or bool((positions[1:] > positions[:-1]).all())
    inside = positions.numel() == 0 or (int(positions[0]) >= 0 and int(positions[-1]) < size)
    if not rising or not inside:
        raise UsageError(f"{name!r}: positions must be 1-D, sorted, unique and below {size}")


def words(values: Tensor) -> Tensor:
    """The bits of numbers as integers: 0.0 and -0.0 differ, a NaN equals itself."""
    return values.view(_WORDS[values.element_size()])

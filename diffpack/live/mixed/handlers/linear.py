"""Products with a matrix: the base's for all rows, each task's change for its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from diffpack.live.mixed.changed import Changed
from diffpack.live.mixed.handler import Handler
from diffpack.live.mixed.rows import Group

_COLUMNS = 8
"""Changed entries of a bias up to which adding to their columns takes less time than adding all of it."""


class Linear(Handler):
    """`nn.Linear`: weights (outputs, inputs).

    A group whose weights change in few entries gets the base's product and, added in float32 or wider, the product with
    what changes; another one the product with its own weights.
    """

    knows: ClassVar = frozenset(["weight", "bias"])
    inputs_first = False

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The product."""
        x: Tensor = args[0] if args else kwargs["input"]
        self.check_rows(x, 2)
        own = [group for group in self.rows.groups if self._is_own(group)]
        y: Tensor = self._by_group(x, own) if own else original(x).contiguous()
        for group in self.rows.groups:
            if group not in own and any(group in changed for changed in self.changes.values()):
                self._add(y, x, group)
        return y

    def _is_own(self, group: Group) -> bool:
        """Whether a group computes with its own weights."""
        weight, bias = self.changes.get("weight"), self.changes.get("bias")
        by_weight = (
            weight is not None and group in weight and weight.matrix(group, inputs_first=self.inputs_first) is None
        )
        return by_weight or (bias is not None and group in bias and bias.difference(group) is None)

    def _by_group(self, x: Tensor, own: list[Group]) -> Tensor:
        """The products with a group's own weights, for the others with the base's."""
        weight = self._tensor("weight", None)
        assert weight is not None
        y = x.new_empty((*x.shape[:-1], weight.shape[1 if self.inputs_first else 0]))
        for group in self.rows.groups:
            there = self.rows.take(y, group)
            there.copy_(self._product(self.rows.take(x, group), group if group in own else None))
            self.rows.put(y, group, there)
        return y

    def _product(self, x: Tensor, group: Group | None) -> Tensor:
        weight, bias = self._tensor("weight", group), self._tensor("bias", group)
        assert weight is not None
        return functional.linear(x, weight.t() if self.inputs_first else weight, bias)

    def _tensor(self, attribute: str, group: Group | None) -> Tensor | None:
        changed = self.changes.get(attribute)
        if changed is not None and group is not None:
            return changed.whole(group)
        tensor: Tensor | None = getattr(self.module, attribute)
        return tensor

    def _add(self, y: Tensor, x: Tensor, group: Group) -> None:
        weight, bias = self.changes.get("weight"), self.changes.get("bias")
        there = self.rows.take(y, group)
        wide = torch.float64 if y.dtype == torch.float64 else torch.float32
        total = there.to(wide)
        if weight is not None and group in weight:
            matrix = weight.matrix(group, inputs_first=self.inputs_first)
            assert matrix is not None
            inputs = self.rows.take(x, group).to(wide)
            matrix.add_product(total.view(-1, total.shape[-1]), inputs.reshape(-1, inputs.shape[-1]))
        if bias is not None and group in bias:
            _add_bias(total, bias, group)
        if total is not there:
            there.copy_(total)
        self.rows.put(y, group, there)


def _add_bias(total: Tensor, bias: Changed, group: Group) -> None:
    """Add what a group adds to a bias: a few entries to their columns alone, not a pass over all."""
    added, index = bias.difference(group), bias.entry(group).index
    assert added is not None
    if index is None or index.numel() > _COLUMNS:
        total.add_(added)
        return
    for column in index.tolist():
        total[..., column] += added[column]


class InputsFirst(Linear):
    """transformers' `Conv1D` (GPT-2): weights (inputs, outputs)."""

    inputs_first = True

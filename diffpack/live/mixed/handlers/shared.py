"""What is computed without rows, and broadcast to them: position tables, relative biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffpack.live.mixed.handler import Handler
from diffpack.live.mixed.replaced import replaced


class Shared(Handler):
    """Computed once a group with its table, and given to its rows: the result gets them as first dimension."""

    knows: ClassVar = frozenset(["weight"])

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The result for each row."""
        changed = self.changes["weight"]
        parts: list[Tensor] = []
        for group in self.rows.groups:
            with replaced([(self.module, "weight", changed.whole(group))]), self.batch.as_one_task():
                parts.append(self.without_rows(original(*args, **kwargs)))
        return self.rows.by_row(torch.stack(parts))

    def without_rows(self, result: Tensor) -> Tensor:
        """The result of one group, without a first dimension for rows."""
        return result


class SharedOfOne(Shared):
    """The same for a result that has a first dimension of 1 to be broadcast."""

    def without_rows(self, result: Tensor) -> Tensor:
        """The result without that."""
        if result.shape[0] != 1:
            self.refuse(f"it gave a tensor of shape {tuple(result.shape)}, not one for all rows")
        return result.squeeze(0)


class Positions(Shared):
    """Whisper's positions of its decoder: counted from the start, (positions, width), or at given ids."""

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The positions of each row."""
        given = kwargs.get("position_ids", args[2] if len(args) > 2 else None)
        if given is None:
            return super().__call__(original, *args, **kwargs)
        if given.dim() > 1 and given.shape[0] == 1:
            given = given.expand(self.rows.count, *given.shape[1:])
        self.check_rows(given, 2)
        changed = self.changes["weight"]
        found = torch.empty((*given.shape, changed.tensor.shape[1]), dtype=changed.tensor.dtype, device=given.device)
        for group in self.rows.groups:
            there = self.rows.take(found, group)
            there.copy_(changed.whole(group)[self.rows.take(given, group)])
            self.rows.put(found, group, there)
        return found

"""Rows of a table: the base's looked up for all, changed words put in for the rows of each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpack.live.mixed.changed import Changed
from diffpack.live.mixed.handler import Batch, Handler
from diffpack.live.mixed.rows import Group


class Embedding(Handler):
    """`nn.Embedding`: an index (rows, ...) or (1, ...), which is that of all rows. Bit-equal to runs by task."""

    knows: ClassVar = frozenset(["weight"])

    def __init__(self, module: nn.Module, name: str, changes: Mapping[str, Changed], batch: Batch) -> None:
        super().__init__(module, name, changes, batch)
        if getattr(module, "max_norm", None) is not None:
            self.refuse("its max_norm changes the table as it is read")
        self._changed = changes["weight"]

    def __call__(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """What stands in the table at an index."""
        index: Tensor = args[0] if args else kwargs["input"]
        if index.dim() < 2:
            self.refuse("its index has one dimension, which may be rows as well as positions")
        if index.shape[0] == 1:
            index = index.expand(self.rows.count, *index.shape[1:])
        self.check_rows(index, 2)
        found: Tensor = original(index)
        for group in self.rows.groups:
            if group not in self._changed:
                continue
            at, part = self.rows.take(index, group), self.rows.take(found, group)
            if self._changed.entry(group).index is None:
                part.copy_(functional.embedding(at, self._changed.whole(group)))
            else:
                self._put(at.reshape(-1), part, group)
            self.rows.put(found, group, part)
        return found

    def _put(self, table_rows: Tensor, part: Tensor, group: Group) -> None:
        """Write the words that changed in some rows of the table, one for each row of `part`."""
        positions = self._changed.entry(group).index
        assert positions is not None
        width = part.shape[-1]
        first = torch.searchsorted(positions, (table_rows * width).to(positions.dtype))
        count = torch.searchsorted(positions, ((table_rows + 1) * width).to(positions.dtype)) - first
        starts = count.cumsum(0) - count
        row = torch.repeat_interleave(torch.arange(count.numel(), device=count.device), count)
        entry = torch.arange(row.numel(), device=row.device) + (first - starts).index_select(0, row)
        column = positions.index_select(0, entry).remainder(width)
        words = self._changed.words(group).index_select(0, entry)
        part.view(-1).scatter_(0, row * width + column, words)

"""Which rows of a batch belong to which task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpack.live.patch import Entry, Patch
from diffpack.live.places import Place


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of one task, ascending, and what it puts where; `key` tells its version (`Version.added`)."""

    key: int
    rows: tuple[int, ...]
    entries: Mapping[Place, Entry]


class Rows:
    """The rows of a batch: `count` of them, in `groups` of those that belong to one task (or to the base).

    `tasks` has the version's count and the patch of each row.
    """

    def __init__(self, tasks: Sequence[tuple[int, Patch]]) -> None:
        self.count = len(tasks)
        members: dict[int, list[int]] = {}
        for row, (key, _) in enumerate(tasks):
            members.setdefault(key, []).append(row)
        patches = dict(tasks)
        self.groups = [
            Group(key, tuple(rows), {entry.place: entry for entry in patches[key].entries if entry.words.numel()})
            for key, rows in members.items()
        ]
        self._group_of_row = [0] * self.count
        for at, group in enumerate(self.groups):
            for row in group.rows:
                self._group_of_row[row] = at
        self._indexes: dict[tuple[Group | None, torch.device], Tensor] = {}

    def take(self, x: Tensor, group: Group) -> Tensor:
        """A group's rows of a tensor; a view of it where they are neighbours."""
        first, last = group.rows[0], group.rows[-1]
        if last - first + 1 == len(group.rows):
            return x[first : last + 1]
        return x.index_select(0, self._index(group, x.device))

    def put(self, y: Tensor, group: Group, part: Tensor) -> None:
        """Write a group's rows of a tensor; nothing is to be done where `part` is the view `take` gave."""
        if part.data_ptr() == y[group.rows[0]].data_ptr():
            return
        y.index_copy_(0, self._index(group, y.device), part)

    def by_row(self, stacked: Tensor) -> Tensor:
        """From one item a group to one a row."""
        return stacked.index_select(0, self._index(None, stacked.device))

    def _index(self, group: Group | None, device: torch.device) -> Tensor:
        """A group's rows, or (None) each row's group."""
        found = self._indexes.get((group, device))
        if found is None:
            rows = self._group_of_row if group is None else group.rows
            found = self._indexes[group, device] = torch.tensor(rows, device=device)
        return found

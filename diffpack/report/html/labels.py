"""What diffs are called on a page: their names without the folder all of them share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class Labels:
    """`short` has the label of every name; `folder` is what was taken off, "" if nothing was."""

    folder: str
    short: Mapping[str, str]

    @classmethod
    def of(cls, names: Sequence[str]) -> Labels:
        """Find the folder they share; the last part of a name is never taken off."""
        folders = [name.split(os.sep)[:-1] for name in names]
        shared = [parts[0] for parts in takewhile(_alike, zip(*folders, strict=False))]
        at = len(shared)
        return cls(
            os.sep.join([*shared, ""]) if shared else "", {name: os.sep.join(name.split(os.sep)[at:]) for name in names}
        )

    def __getitem__(self, name: str) -> str:
        return self.short.get(name, name)


def _alike(parts: tuple[str, ...]) -> bool:
    return len(set(parts)) == 1

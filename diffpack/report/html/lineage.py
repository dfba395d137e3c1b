"""The history of models: diffs that continue each other, as nested lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from diffpack.report.families import Member

DEEPEST = 6
"""Lists in lists that are still read; a branch of a branch beyond that says in words what it continues."""


@dataclass(frozen=True)
class Link:
    """A version. Before it `closes` lists end; then one begins inside the item that is open (`opens`), or that ends.

    `continues` names the version it is made from, where that is neither the one before it nor the one around it.
    """

    member: Member
    closes: int
    opens: bool
    continues: str | None


def lineage(tree: Sequence[Member]) -> tuple[tuple[Link, ...], int]:
    """A root and all that continue it, in their order; and how many lists are open at the end.

    A single successor stands in the same list; each of several begins a list of its own, inside what it continues.
    """
    followers = Counter(id(item.parent) for item in tree if item.parent is not None)
    levels: dict[int, int] = {}
    links: list[Link] = []
    last = 1
    for at, item in enumerate(tree):
        parent = item.parent
        around = 1 if parent is None else levels[id(parent)]
        opens = followers[id(parent)] > 1 and around < DEEPEST
        told = parent is None or opens or tree[at - 1].diff is parent
        links.append(Link(item, last - around, opens, None if told or parent is None else parent.name))
        last = levels[id(item.diff)] = around + opens
    return tuple(links), last

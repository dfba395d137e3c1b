"""From wanted names to rename rules: the shortest list of prefixes that calls every tensor what it is to be called.

A rule takes all names that start with its old prefix, unless a longer one does (rules stand longest first). So what a
name becomes is told by the nearest rule on its way from the root of the tree of prefixes, as the next hop is in a
routing table, and the fewest rules are found as there: from the leaves up, by dynamic programming (Draves and others,
Constructing Optimal IP Routing Tables, 1999).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from diffpack.tensors.rename import Rename, Renamer

_RULE = 1 << 44
"""What a rule costs. The rest of a cost only tells lists of equally many rules apart: by how few there are to whose
prefixes others make exceptions, as people read each by itself, and by letters."""
_EXCEPTION = 1 << 26
_NEVER = 1 << 62
"""The cost of what is not possible."""
_BOUNDARY = re.compile(r"[./]")
_REMOVED = "removed."
"""Stands before the name of a tensor that is gone, where its own is another one's now."""
_TRIES = 4
"""How often clashing names are told apart one set after the other; then all are."""


def rules_for(wanted: Mapping[str, str], free: Iterable[str] = (), taken: Iterable[str] = ()) -> Rename:
    """The rules that give each name the wanted one, as few as prefixes that end at a dot, a slash or a name can be.

    `wanted` leads from each name to a name that no other gets. `free` are further names: any name that nothing else
    has, and that is not `taken`, is right for them.
    """
    never = {*wanted.values(), *taken}
    others = sorted(set(free) - wanted.keys())
    pinned: dict[str, str] = {}
    for last in range(_TRIES + 1):
        rules = _compiled({**wanted, **pinned})
        called = Renamer(rules)
        given = never | set(pinned.values())
        clashing = []
        for name in others:
            if name not in pinned:
                new = called(name)
                if new in given:
                    clashing.append(name)
                given.add(new)
        if not clashing:
            break
        clashing = clashing if last < _TRIES - 1 else [name for name in others if name not in pinned]
        pinned |= _apart(clashing, never | set(pinned.values()))
    assert all(called(name) == new for name, new in wanted.items())
    return rules


def _apart(names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """Names that nothing has, all with one more prefix."""
    found = {}
    for name in names:
        new = name
        while new in taken:
            new = _REMOVED + new
        taken.add(new)
        found[name] = new
    return found


@dataclass
class _Node:
    """A prefix: what it must become (`name`, if it is a whole name), and what that costs below it.

    `fit` has the cost of the names below for what the prefix becomes, where that is right for one of them;
    `otherwise` is the cost for anything else. `rule` is the cheapest that can stand here, and its cost with all below.
    """

    prefix: str
    name: str | None = None
    children: list[_Node] = field(default_factory=list)
    fit: dict[str, int] = field(default_factory=dict)
    otherwise: int = 0
    rule: tuple[int, str] = (_NEVER, "")

    def cost(self, becomes: str) -> int:
        """The cost if no rule above says anything else than `becomes`."""
        return min(self.fit.get(becomes, self.otherwise), self.rule[0])

    @property
    def alone(self) -> int:
        """The cost if nothing that comes from above is right."""
        return min(self.otherwise, self.rule[0])

    def settle(self) -> None:
        """Find the costs, once those of the children are known."""
        cut = len(self.prefix)
        if self.name is not None:
            below = sum(child.cost(self.name + child.prefix[cut:]) for child in self.children)
            self.fit, self.otherwise = {self.name: below}, _NEVER
        else:
            self.otherwise = sum(child.alone for child in self.children)
            for child in self.children:
                tail, alone = child.prefix[cut:], child.alone
                for becomes in child.fit:
                    if becomes.endswith(tail):
                        own = becomes[: len(becomes) - len(tail)]
                        self.fit[own] = self.fit.get(own, self.otherwise) + child.cost(becomes) - alone
        self.rule = min(
            (
                (below + _RULE + below // _RULE * _EXCEPTION + cut + len(own), own)
                for own, below in self.fit.items()
                if below < _NEVER
            ),
            default=(_NEVER, ""),
        )


def _compiled(wanted: Mapping[str, str]) -> Rename:
    nodes = _tree(wanted)
    for node in reversed(nodes):  # children stand behind their parents
        node.settle()
    rules = []
    ways = [(nodes[0], "")]
    while ways:
        node, becomes = ways.pop()
        if node.fit.get(becomes, node.otherwise) > node.rule[0]:
            becomes = node.rule[1]
            rules.append((node.prefix, becomes))
        ways += [(child, becomes + child.prefix[len(node.prefix) :]) for child in node.children]
    return tuple(sorted(rules, key=lambda rule: (-len(rule[0]), rule)))


def _tree(wanted: Mapping[str, str]) -> list[_Node]:
    """All prefixes of names that end at a boundary, and the names, each after the longest one it begins with."""
    prefixes = {""}
    for name in wanted:
        prefixes.add(name)
        prefixes.update(name[: found.end()] for found in _BOUNDARY.finditer(name))
    nodes: list[_Node] = []
    way: list[_Node] = []
    for prefix in sorted(prefixes):
        node = _Node(prefix, wanted.get(prefix))
        nodes.append(node)
        while way and not prefix.startswith(way[-1].prefix):
            way.pop()
        if way:
            way[-1].children.append(node)
        way.append(node)
    return nodes

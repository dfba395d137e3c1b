"""Rename rules: what a tensor of the base is called in the result, and how such rules are chained."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from diffpack.errors import UsageError

Rename = tuple[tuple[str, str], ...]
"""(old prefix, new prefix) pairs; the first whose old prefix fits is taken."""


def renamed(name: str, rename: Sequence[tuple[str, str]]) -> str:
    """The name a base tensor has under the rename rules."""
    for old, new in rename:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


class Renamer:
    """`renamed` for many names: rules are looked up by the lengths of their old prefixes, not tried one by one."""

    def __init__(self, rename: Sequence[tuple[str, str]]) -> None:
        self._rules: dict[str, tuple[int, str]] = {}
        for at, (old, new) in enumerate(rename):
            self._rules.setdefault(old, (at, new))
        self._lengths = sorted({len(old) for old in self._rules})

    def first(self, name: str) -> tuple[str, str] | None:
        """The first rule that fits a name."""
        lengths = self._lengths[: bisect_right(self._lengths, len(name))]
        fitting = [old for length in lengths if (old := name[:length]) in self._rules]
        if not fitting:
            return None
        old = min(fitting, key=lambda old: self._rules[old][0])
        return old, self._rules[old][1]

    def __call__(self, name: str) -> str:
        """The name a base tensor has under the rules."""
        rule = self.first(name)
        return name if rule is None else rule[1] + name[len(rule[0]) :]


def own_names(
    names: Iterable[str], rename: Sequence[tuple[str, str]], copies: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Map new names to the base's own names.

    `copies` leads from further names to those, after renaming, of the tensors they are copies of; a copy takes the
    place of a tensor of its name. Raises `UsageError` if two tensors get one name, or there is nothing to copy.
    """
    view: dict[str, str] = {} if rename else {name: name for name in names}
    called = Renamer(rename)
    for name in names if rename else ():
        new = called(name)
        if new in view:
            raise UsageError(f"renaming gives both {view[new]!r} and {name!r} the name {new!r}")
        view[new] = name
    found = {}
    for name, source in (copies or {}).items():
        if source not in view:
            raise UsageError(f"{name!r} is a copy of {source!r}, which is missing")
        found[name] = view[source]
    return view | found


def free_names(wanted: Mapping[str, str], taken: set[str]) -> dict[str, str]:
    """Names that nothing has: those wanted (by key) where they are free, else longer ones."""
    free = {}
    for key, name in wanted.items():
        while name in taken:
            name += ".removed"
        taken.add(name)
        free[key] = name
    return free


def compose_rename(first: Rename, second: Rename) -> Rename:
    """The rules that do to every name what the first and then the second do (of each, the first that fits)."""
    rules: list[tuple[str, str]] = []
    for old, new in first:
        rules += _after(old, new, second)
    rules += second
    kept: list[tuple[str, str]] = []
    taken: set[str] = set()
    lengths: set[int] = set()
    for old, new in rules:
        if not any(old[:length] in taken for length in lengths):  # else an earlier rule takes all its names
            kept.append((old, new))
            taken.add(old)
            lengths.add(len(old))
    while kept and kept[-1][0] == kept[-1][1]:  # a last rule that changes nothing
        kept.pop()
    return tuple(kept)


def _after(old: str, new: str, second: Rename) -> list[tuple[str, str]]:
    """The rules for names that the rule old -> new takes, followed by the second rules."""
    rules: list[tuple[str, str]] = []
    for source, target in second:
        if new.startswith(source):
            return [*rules, (old, target + new[len(source) :])]
        if source.startswith(new):
            rules.append((old + source[len(new) :], target))
    return [*rules, (old, new)]

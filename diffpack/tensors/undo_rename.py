"""Rename rules the other way: what a tensor may have been called before they gave it its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from diffpack.tensors.rename import Rename, Renamer


def base_names(name: str, rename: Rename) -> list[str]:
    """The names a base tensor may have that rename rules call `name`, those that a rule changes first.

    Of several of them a base has at most one: rules never give two tensors one name. None if they call nothing so.
    """
    called, by_new = _looked_up(rename)
    fitting = sorted(rule for end in range(len(name) + 1) for rule in by_new.get(name[:end], ()))
    undone = [old + name.removeprefix(new) for _, old, new in fitting]
    return [found for found in dict.fromkeys([*undone, name]) if called(found) == name]


@lru_cache(maxsize=8)  # the rules of the diffs that are brought together; names are asked for one by one
def _looked_up(rename: Rename) -> tuple[Renamer, Mapping[str, list[tuple[int, str, str]]]]:
    """The rules, and their places among all by what they lead to."""
    by_new: dict[str, list[tuple[int, str, str]]] = {}
    for at, (old, new) in enumerate(rename):
        by_new.setdefault(new, []).append((at, old, new))
    return Renamer(rename), by_new

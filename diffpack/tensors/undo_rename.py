"""Rename rules the other way: what a tensor may have been called before they gave it its name."""

from __future__ import annotations

from diffpack.tensors.rename import Rename, renamed


def base_names(name: str, rename: Rename) -> list[str]:
    """The names a base tensor may have that rename rules call `name`, those that a rule changes first.

    Of several of them a base has at most one: rules never give two tensors one name. None if they call nothing so.
    """
    undone = [old + name.removeprefix(new) for old, new in rename if name.startswith(new)]
    return [found for found in dict.fromkeys([*undone, name]) if renamed(found, rename) == name]

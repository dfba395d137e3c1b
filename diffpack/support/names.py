"""Names that come from files and are not trusted."""

from __future__ import annotations

import re

_MOST_NAMED = 5  # tensors an error message lists


def printable(name: str) -> str:
    """A tensor's name, written so that it can be seen and cannot move a terminal's cursor."""
    if not name:
        return "''"
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


def listed(items: list[str]) -> str:
    """Join the first few items for an error message, and say how many more there are."""
    more = f" and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    return ", ".join(items[:_MOST_NAMED]) + more


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers in names by their size."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]

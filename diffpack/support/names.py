"""Names that come from files and are not trusted."""

from __future__ import annotations

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

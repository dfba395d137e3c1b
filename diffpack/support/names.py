"""Names that come from files and are not trusted."""

from __future__ import annotations

_FORBIDDEN = frozenset("/\\:\x7f") | {chr(code) for code in range(32)}
_MOST_BYTES = 255
_MOST_NAMED = 5  # tensors an error message lists


def is_plain_file_name(name: str) -> bool:
    """Tell whether a name may be written into an output folder (rule L1): no path, no hidden file."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes of a file name that are no UTF-8
        return False
    return 0 < size <= _MOST_BYTES and not name.startswith(".") and not _FORBIDDEN & set(name)


def printable(name: str) -> str:
    """Give a tensor's name so that it cannot move a terminal's cursor."""
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


def listed(items: list[str]) -> str:
    """Join the first few items for an error message, and say how many more there are."""
    more = f" and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else ""
    return ", ".join(items[:_MOST_NAMED]) + more

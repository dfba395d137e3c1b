"""Tables on a terminal: as wide as it is, numbers whole, names cut in the middle."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .output import table

if TYPE_CHECKING:
    from diffpack.report.tables import Table

_GAP = 2
_LEAST_NAME = 16
"""Characters of a name that are left before a column is; when none is left, names get shorter still."""
_LAST_NAME = 8
_PLAIN = str.maketrans({"└": "`", "…": "~"} | dict.fromkeys("▏▎▍▌▋▊▉█", "#"))
"""What stands for signs that an encoding lacks."""


def text_of(tables: Sequence[Table]) -> str:
    """All tables, one after another, as the terminal takes them; in a pipe as wide as they are."""
    width = _width()
    text = "\n\n".join("\n".join(_lines(item, width)) for item in tables)
    return text if _has_signs() else text.translate(_PLAIN)


def _width() -> int | None:
    """Columns of the terminal, or those COLUMNS says; None where nobody says."""
    if os.environ.get("COLUMNS", "").isdecimal() or (sys.stdout is not None and sys.stdout.isatty()):
        return shutil.get_terminal_size().columns
    return None


def _has_signs() -> bool:
    return "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()


def _lines(item: Table, width: int | None) -> list[str]:
    fitted = item if width is None else _fitted(item, width)
    head = [column.title for column in fitted.columns]
    left = frozenset(at for at, column in enumerate(fitted.columns) if column.left)
    rows = table(head, fitted.rows, left) if any(head) else table(fitted.rows[0], fitted.rows[1:], left)
    return [*(fitted.title.split("\n") if fitted.title else []), *rows]


def _fitted(item: Table, width: int) -> Table:
    """The table without the columns that have no room, and with names as long as they may be."""
    while True:
        longest = _widths(item)
        room = width - sum(longest) - _GAP * (len(longest) - 1)
        names = [at for at, column in enumerate(item.columns) if column.cut]
        free = sum(max(0, longest[at] - _LEAST_NAME) for at in names)
        spare = max(item.columns, key=lambda column: column.spare, default=None)
        if room >= 0 or not names or room + free >= 0 or spare is None or not spare.spare:
            break
        item = item.without(item.columns.index(spare))
    return item if room >= 0 or not names else _cut(item, names, longest, room)


def _widths(item: Table) -> list[int]:
    head = [column.title for column in item.columns]
    return [max(len(row[at]) for row in (head, *item.rows)) for at in range(len(head))]


def _cut(item: Table, names: Sequence[int], longest: Sequence[int], room: int) -> Table:
    """Cut names by what is missing, the first column of names first."""
    from diffpack.report.tables import Table
    from diffpack.support.amounts import shortened

    most = list(longest)
    for at in names:
        most[at] = max(_LAST_NAME, most[at] + room)
        room += longest[at] - most[at]
    rows = tuple(
        tuple(shortened(cell, most[at]) if at in names else cell for at, cell in enumerate(row)) for row in item.rows
    )
    return Table(item.columns, rows, item.title)

"""A report in Markdown, as code hosts show it: a table of GitHub's for each table."""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.report.tables import Table

_ESCAPES = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "*": "\\*", "_": "\\_", "`": "\\`", "\\": "\\\\"})


def markdown(tables: Sequence[Table]) -> str:
    """All tables, one after another; titles stand above them."""
    return "\n\n".join(map(_one, tables)) + "\n"


def _one(table: Table) -> str:
    head = [_escaped(column.title) or " " for column in table.columns]
    marks = [":--" if column.left else "--:" for column in table.columns]
    lines = [_line(row) for row in (head, marks, *([_escaped(cell) for cell in row] for row in table.rows))]
    title = " ".join(_escaped(part.strip()) for part in table.title.split("\n"))
    return "\n".join([f"**{title}**\n"] * bool(title) + lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)

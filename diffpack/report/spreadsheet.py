"""A report as comma-separated values (RFC 4180), for spreadsheets and data frames: whole numbers, a line a row."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from diffpack.report.rows import DiffRow, Document, PartRow, ProblemRow, TensorRow, plain

_PATH = "path"
_PROBLEM = "problem"


def spreadsheet(document: Document) -> str:
    """A line for each diff; where tensors or parts were counted, a line for each of these instead.

    Lines of diffs end with `problem`: why one could not be counted, whose other fields are empty.
    """
    rows, columns = _lines(document)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _lines(document: Document) -> tuple[list[dict[str, Any]], list[str]]:
    for name, kind in (("tensors", TensorRow), ("parts", PartRow)):
        if any(getattr(row, name) is not msgspec.UNSET for row in document.diffs):
            inner = [{_PATH: row.path} | _flat(item) for row in document.diffs for item in getattr(row, name)]
            return inner, [_PATH, *_columns(kind)]
    rows = [_flat(row) for row in document.diffs] + [_failed(row) for row in document.problems]
    return rows, [*_columns(DiffRow), _PROBLEM]


def _columns(kind: type[msgspec.Struct]) -> list[str]:
    return [field for field in kind.__struct_fields__ if field not in _NESTED]


_NESTED = frozenset({"recipe", "codings", "parts", "tensors"})
"""Members that no field of a line can hold; `--json` has them."""


def _flat(row: msgspec.Struct) -> dict[str, Any]:
    return {name: _field(value) for name, value in plain(row).items() if name not in _NESTED}


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else value


def _failed(row: ProblemRow) -> dict[str, Any]:
    return {_PATH: row.path, "bytes": row.bytes, _PROBLEM: row.error}

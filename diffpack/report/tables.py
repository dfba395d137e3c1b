"""A report as tables of text, as the terminal and Markdown show it: numbers are rounded, the rows have them whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diffpack.report.families import ADAPTER_SHARE
from diffpack.report.rows import BudgetRow, DiffRow, Document, FamilyRow, ProblemRow, TensorRow
from diffpack.support.amounts import few_bits, percent, plural, size, times
from diffpack.support.names import printable

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH = 10
_BRANCH = "└ "
_PROBLEMS = {10: "of another base", 11: "damaged, or no diff", 12: "needs a newer diffpack"}
_UNREADABLE = "cannot be read"


@dataclass(frozen=True)
class Column:
    """A column: its title, whether texts stand to the left, whether they may be cut, and when it is left out.

    Where there is no room columns of the highest `spare` go first; those of 0 stay.
    """

    title: str
    left: bool = False
    cut: bool = False
    spare: int = 0


@dataclass(frozen=True)
class Table:
    """Columns and their cells, row by row; `title` stands above it, if there is one."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def without(self, at: int) -> Table:
        """The same without a column."""
        return Table(
            self.columns[:at] + self.columns[at + 1 :], tuple(row[:at] + row[at + 1 :] for row in self.rows), self.title
        )


@dataclass(frozen=True)
class _Cell:
    """A column and how its cell is made of a row."""

    column: Column
    text: Callable[[Any], str]
    needed: Callable[[Sequence[Any]], bool] = bool


def tables_of(document: Document) -> list[Table]:
    """All tables of a report, in their order."""
    found: list[Table] = []
    first = 0
    for family in document.families:
        rows = document.diffs[first : first + family.versions]
        first += family.versions
        found += [_diff_table(family, rows), _total_table(family), _bytes_table(rows)]
        merged = [row for row in rows if _MERGED in row.recipe]
        found += [_made(_MERGE_CELLS, merged, "merges")] if merged else []
        if isinstance(family.parts, tuple):
            found.append(_with_bars(_made(_PART_CELLS, family.parts), [item.bytes for item in family.parts]))
        found += [tensor_table(row.path, row.tensors) for row in rows if isinstance(row.tensors, tuple)]
    if len(document.families) > 1:
        found.append(_together_table(document))
    if document.budget is not None:
        found.append(_budget_table(document.budget))
    if document.problems:
        found.append(_made(_PROBLEM_CELLS, document.problems, "not counted"))
    return found


def _made(cells: Sequence[_Cell], rows: Sequence[Any], title: str = "") -> Table:
    kept = [cell for cell in cells if cell.needed(rows)]
    return Table(
        tuple(cell.column for cell in kept), tuple(tuple(cell.text(row) for cell in kept) for row in rows), title
    )


def _diff_table(family: FamilyRow, rows: Sequence[DiffRow]) -> Table:
    name = f"{printable(family.base_name)}, " if family.base_name else ""
    base = f"{name}{plural(family.base_entries, 'entry')}, {size(family.base_bytes)}"
    return _made(_DIFF_CELLS, rows, f"base {family.base_fingerprint}\n     {base}")


def _name(row: DiffRow) -> str:
    branch = "  " * (row.level - 1) + _BRANCH if row.level else ""
    return branch + printable(row.path)


def _changed(row: DiffRow) -> str:
    return f"{'' if row.counted else '<='}{row.changed:,}"


def _share_changed(row: DiffRow) -> str:
    return f"{'' if row.counted else '<='}{percent(row.density)}"


def _bits(row: DiffRow) -> str:
    return few_bits(row.weight_bits) if row.changed and row.counted else "-"


def stored_as(row: DiffRow) -> str:
    """How most bytes of a diff are stored, and in how many other ways the rest is."""
    if not row.codings:
        return "-"
    first, *others = row.codings
    more = f" +{len(others)}" if others else ""
    return coding_text(first.positions, first.values, first.rank) + more


def coding_text(positions: str, values: str, rank: int) -> str:
    """How a tensor is coded: `gaps/exact`, `levels/lowrank r=16`."""
    return f"{positions}/{values}{f' r={rank}' if rank else ''}"


def error_text(error: float | None) -> str:
    """A relative L2 error; - where it is not recorded."""
    return "-" if error is None else f"{error:.4f}" if error else "0"


def fidelity(row: DiffRow) -> str:
    """Exact, or lossy with the relative L2 error where that is recorded."""
    if row.exact:
        return "exact"
    return "lossy" if row.error is None else f"lossy {error_text(row.error)}"


_DIFF_CELLS = (
    _Cell(Column("diff", left=True, cut=True), _name),
    _Cell(Column("changed"), _changed),
    _Cell(Column("density"), _share_changed),
    _Cell(Column("stored as", left=True, spare=2), stored_as),
    _Cell(Column("result", left=True), fidelity),
    _Cell(Column("bits/change", spare=3), _bits),
    _Cell(Column("file"), lambda row: size(row.bytes)),
    _Cell(
        Column("side files", spare=1), lambda row: size(row.side_file_bytes),
        lambda rows: any(row.side_file_bytes for row in rows),
    ),
    _Cell(Column("of base"), lambda row: percent(row.weight_share)),
)  # fmt: skip

BYTES = {
    "factors": "factor_bytes",
    "positions": "position_bytes",
    "values": "value_bytes",
    "manifest": "manifest_bytes",
    "layout": "layout_bytes",
    "side files": "side_file_bytes",
    "frame": "frame_bytes",
}
"""The parts of a file, and the members of its row that say their bytes; together they are the file."""

_MERGED = "merged"
_MERGE_CELLS = (
    _Cell(Column("diff", left=True, cut=True), lambda row: printable(row.path)),
    _Cell(Column("method", left=True), lambda row: printable(row.recipe[_MERGED])),
    _Cell(Column("changed by several"), lambda row: printable(row.recipe.get("shared", "?"))),
    _Cell(Column("in different directions"), lambda row: printable(row.recipe.get("conflicts", "?"))),
)

_PROBLEM_CELLS = (
    _Cell(Column("diff", left=True, cut=True), lambda row: printable(row.path)),
    _Cell(Column("file"), lambda row: "-" if row.bytes is None else size(row.bytes)),
    _Cell(Column("problem", left=True), lambda row: problem(row)),
)

_TENSOR_CELLS = (
    _Cell(Column("tensor", left=True, cut=True), lambda row: printable(row.name)),
    _Cell(Column("kind", left=True, spare=4), lambda row: row.kind),
    _Cell(Column("dtype", left=True, spare=5), lambda row: row.dtype),
    _Cell(Column("shape", left=True, spare=3), lambda row: str(list(row.shape))),
    _Cell(
        Column("coding", left=True, spare=2), lambda row: coding_text(row.positions, row.values, row.rank),
    ),
    _Cell(Column("changed"), lambda row: f"{row.changed:,}"),
    _Cell(Column("density"), lambda row: percent(row.density)),
    _Cell(
        Column("error", spare=1), lambda row: error_text(row.error),
        lambda rows: any(row.error != 0 for row in rows),
    ),
    _Cell(Column("bytes"), lambda row: size(row.bytes)),
)  # fmt: skip

_PART_CELLS = (
    _Cell(Column("", left=True, cut=True), lambda row: printable(row.key)),
    _Cell(Column("tensors", spare=1), lambda row: f"{row.records:,}"),
    _Cell(Column("changed"), lambda row: f"{row.changed:,}"),
    _Cell(Column("density"), lambda row: percent(row.density)),
    _Cell(Column("bytes"), lambda row: size(row.bytes)),
)


def problem(row: ProblemRow) -> str:
    """What is wrong with a diff, in a few words."""
    return _PROBLEMS.get(row.exit_code, _UNREADABLE)


def _with_bars(table: Table, numbers: Sequence[int]) -> Table:
    """A table with a column of bars, the longest for the largest of the numbers."""
    most = max(numbers, default=0)
    bars = [bar(number / most if most else 0.0) for number in numbers]
    column = Column("", left=True, spare=1)
    return Table(
        (*table.columns, column), tuple((*row, text) for row, text in zip(table.rows, bars, strict=True)), table.title
    )


def bar(share: float, width: int = _BAR_WIDTH) -> str:
    """A bar of at most `width` characters, in eighths; what is more than nothing shows."""
    eighths = max(round(share * width * 8), 1) if share > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def tensor_table(path: str, tensors: Sequence[TensorRow]) -> Table:
    """The tensors of a diff."""
    return _with_bars(_made(_TENSOR_CELLS, tensors, printable(path)), [item.bytes for item in tensors])


def _bytes_table(rows: Sequence[DiffRow]) -> Table:
    """Where the bytes of diffs are, all of them together; what none of them has is left out."""
    sums = {title: sum(getattr(row, member) for row in rows) for title, member in BYTES.items()}
    kept = {title: nbytes for title, nbytes in sums.items() if nbytes}
    whole = sum(kept.values())
    texts = [size(nbytes) for nbytes in kept.values()], [percent(nbytes / whole) for nbytes in kept.values()]
    columns = (Column("where the bytes are", left=True), *map(Column, kept))
    return Table(columns, (("", *texts[0]), ("", *texts[1])))


_TOTALS = (Column("", left=True), Column(""), Column(""), Column("", left=True))


def _total_table(family: FamilyRow) -> Table:
    """What the diffs of a base cost together, beside other ways to keep as many results."""
    many = plural(family.versions, "diff")
    chain = f" of {plural(family.models, 'model')}" if family.models < family.versions else ""
    adapters = f"{plural(family.versions, 'adapter')} of {100 * ADAPTER_SHARE:.1f} %"
    rows = [
        (f"{many}{chain}", size(family.weight_bytes), percent(family.weight_share), "of the base"),
        (f"base + {many}", size(family.stored_bytes), times(family.stored_multiple), _break_even(family)),
        (f"base + {adapters}", size(family.adapter_bytes), times(family.adapter_multiple), ""),
        (plural(family.versions, "full copy"), size(family.full_bytes), times(family.full_multiple), ""),
    ]
    if family.side_file_bytes:
        rows.append(("side files beside them", size(family.side_file_bytes), "", "in the files, in no figure above"))
    return Table(_TOTALS, tuple(rows))


def _break_even(family: FamilyRow) -> str:
    if family.break_even is None:
        return "never less than full copies"
    return f"less than full copies from {plural(family.break_even, 'diff')} on"


def _together_table(document: Document) -> Table:
    all_of = document.together
    bases, diffs = plural(all_of.bases, "base"), plural(all_of.diffs, "diff")
    many = all_of.base_bytes or 1
    return Table(
        _TOTALS,
        (
            (f"{diffs} together", size(all_of.weight_bytes), percent(all_of.weight_share), f"of {bases}"),
            (f"{bases} + {diffs}", size(all_of.total_weight_bytes), times(all_of.total_weight_bytes / many), ""),
            (plural(all_of.diffs, "full copy"), size(all_of.full_bytes), times(all_of.full_bytes / many), ""),
        ),
        "all together",
    )


def _budget_table(budget: BudgetRow) -> Table:
    more = f"{plural(budget.more, 'more diff')} like these fit" if budget.more >= 0 else _too_many(budget)
    share = percent(budget.used / budget.bytes) if budget.bytes else "-"
    return Table(_TOTALS, ((f"budget of {size(budget.bytes)}", size(budget.used), share, f"used; {more}"),))


def _too_many(budget: BudgetRow) -> str:
    over = size(budget.used - budget.bytes)
    return f"over by {over}, {plural(-budget.more, 'diff')} too many"

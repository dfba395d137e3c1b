"""A whole report as plain rows: what `--json` prints, and tables are made from."""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.report.budget import Budget
from diffpack.report.gate import Excess
from diffpack.report.row_of import diff_row, family_row
from diffpack.report.rows import BudgetRow, Document, ExcessRow, ProblemRow, TogetherRow
from diffpack.report.stats import Problem, Stats


def document(
    found: Stats,
    *,
    tensors: bool = False,
    by: str | None = None,
    budget: Budget | None = None,
    exceeded: Sequence[Excess] = (),
    base_checked: bool = False,
) -> Document:
    """Put what was counted into rows: with `tensors` each of these, with `by` (of `parts.BY`) their sums.

    For both the tensors must have been counted. Raises `UsageError` for another `by`.
    """
    members = [member for family in found.families for member in family.members]
    return Document(
        diffs=tuple(diff_row(item, tensors=tensors, by=by) for item in members),
        problems=tuple(map(_problem, found.problems)),
        families=tuple(family_row(family, by=by) for family in found.families),
        together=together_row(found),
        budget=None if budget is None else BudgetRow(budget.nbytes, budget.used, budget.more),
        exceeded=tuple(ExcessRow(item.name or None, item.nbytes, item.most) for item in exceeded),
        base_checked=base_checked,
    )


def _problem(item: Problem) -> ProblemRow:
    return ProblemRow(item.name, item.nbytes, str(item.error), item.error.exit_code)


def together_row(found: Stats) -> TogetherRow:
    """The row of all diffs."""
    return TogetherRow(
        diffs=len(found.diffs),
        bases=len(found.families),
        models=sum(item.models for item in found.families),
        diff_bytes=found.nbytes,
        weight_bytes=found.weight_bytes,
        side_file_bytes=found.side_file_bytes,
        base_bytes=found.base_bytes,
        total_bytes=found.base_bytes + found.nbytes,
        total_weight_bytes=found.base_bytes + found.weight_bytes,
        full_bytes=found.full_bytes,
        share_of_base=found.share_of_base,
        weight_share=found.weight_share,
    )

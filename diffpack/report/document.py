"""From what was counted to plain rows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from diffpack.diff.stats import CodingStats, TensorStats
from diffpack.report.budget import Budget
from diffpack.report.families import Family, Member
from diffpack.report.gate import Excess
from diffpack.report.parts import Part
from diffpack.report.rows import (
    BudgetRow,
    CodingRow,
    DiffRow,
    Document,
    ExcessRow,
    FamilyRow,
    PartRow,
    ProblemRow,
    TensorRow,
    TogetherRow,
)
from diffpack.report.stats import Problem, Stats


def document(
    found: Stats,
    *,
    tensors: bool = False,
    parts: Mapping[str, tuple[Part, ...]] | None = None,
    budget: Budget | None = None,
    exceeded: tuple[Excess, ...] = (),
    base_checked: bool = False,
) -> Document:
    """Put what was counted into rows. `parts` has those of each diff, by its name."""
    members = [member for family in found.families for member in family.members]
    return Document(
        diffs=tuple(diff_row(item, tensors=tensors, parts=parts) for item in members),
        problems=tuple(map(_problem, found.problems)),
        families=tuple(map(family_row, found.families)),
        together=together_row(found),
        budget=None if budget is None else BudgetRow(budget.nbytes, budget.used, budget.more),
        exceeded=tuple(ExcessRow(item.name or None, item.nbytes, item.most) for item in exceeded),
        base_checked=base_checked,
    )


def diff_row(member: Member, *, tensors: bool = False, parts: Mapping[str, tuple[Part, ...]] | None = None) -> DiffRow:
    """The row of a diff."""
    item = member.diff
    return DiffRow(
        path=item.name,
        exact=item.exact,
        changed=item.changed,
        counted=item.counted,
        entries=item.result_entries,
        density=item.density,
        bytes=item.nbytes,
        weight_bytes=item.weight_bytes,
        bits_per_change=item.bits_per_change,
        weight_bits=item.weight_bits,
        share_of_base=item.share_of_base,
        weight_share=item.weight_share,
        factor_bytes=item.factor_bytes,
        position_bytes=item.position_bytes,
        value_bytes=item.value_bytes,
        manifest_bytes=item.manifest_bytes,
        file_bytes=item.layout_bytes + item.side_file_bytes,
        layout_bytes=item.layout_bytes,
        side_file_bytes=item.side_file_bytes,
        frame_bytes=item.frame_bytes,
        base_fingerprint=item.base_fingerprint,
        base_name=item.base_name,
        base_bytes=item.base_bytes,
        result_fingerprint=item.result_fingerprint,
        result_bytes=item.result_bytes,
        records=item.records,
        removed=item.removed,
        aliases=item.aliases,
        error=item.error,
        continues=None if member.parent is None else member.parent.name,
        depth=member.depth,
        latest=member.latest,
        recipe=dict(item.recipe),
        codings=tuple(map(_coding, item.codings)),
        parts=msgspec.UNSET if parts is None else tuple(map(part_row, parts[item.name])),
        tensors=tuple(map(tensor_row, item.tensors)) if tensors else msgspec.UNSET,
    )


def _coding(item: CodingStats) -> CodingRow:
    return CodingRow(item.position_coding_id, item.value_coding_id, item.rank, item.records, item.nbytes)


def tensor_row(item: TensorStats) -> TensorRow:
    """The row of a tensor."""
    return TensorRow(
        item.name, item.kind, item.dtype, item.shape, item.position_coding_id, item.value_coding_id, item.rank,
        item.changed, item.entries, item.density, item.nbytes, item.tensor_bytes, item.error,
    )  # fmt: skip


def part_row(item: Part) -> PartRow:
    """The row of tensors that are summed."""
    return PartRow(item.key, item.records, item.changed, item.entries, item.density, item.nbytes)


def _problem(item: Problem) -> ProblemRow:
    return ProblemRow(item.name, item.nbytes, str(item.error), item.error.exit_code)


def family_row(item: Family) -> FamilyRow:
    """The row of the diffs of a base."""
    return FamilyRow(
        base_fingerprint=item.base_fingerprint,
        base_name=item.base_name,
        base_bytes=item.base_bytes,
        base_entries=item.base_entries,
        models=item.models,
        versions=item.versions,
        diff_bytes=item.nbytes,
        weight_bytes=item.weight_bytes,
        side_file_bytes=item.side_file_bytes,
        weight_share=item.weight_share,
        stored_bytes=item.stored_bytes,
        stored_multiple=item.multiple(item.stored_bytes),
        full_bytes=item.full_bytes,
        full_multiple=item.multiple(item.full_bytes),
        adapter_bytes=item.adapter_bytes,
        adapter_multiple=item.multiple(item.adapter_bytes),
        break_even=item.break_even,
    )


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

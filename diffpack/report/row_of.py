"""From what was counted to its plain row."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from diffpack.diff.stats import CodingStats, TensorStats
from diffpack.report.families import Family, Member
from diffpack.report.parts import Part, parts_by
from diffpack.report.rows import CodingRow, DiffRow, FamilyRow, PartRow, TensorRow


def diff_row(member: Member, *, tensors: bool = False, by: str | None = None) -> DiffRow:
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
        level=member.level,
        latest=member.latest,
        recipe=dict(item.recipe),
        codings=tuple(map(_coding, item.codings)),
        parts=_parts(by, item.tensors),
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


def _parts(by: str | None, tensors: Sequence[TensorStats]) -> tuple[PartRow, ...] | msgspec.UnsetType:
    return msgspec.UNSET if by is None else tuple(map(part_row, parts_by(by, tensors)))


def family_row(item: Family, *, by: str | None = None) -> FamilyRow:
    """The row of the diffs of a base."""
    tensors = [tensor for member in item.members for tensor in member.diff.tensors]
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
        parts=_parts(by, tensors),
    )

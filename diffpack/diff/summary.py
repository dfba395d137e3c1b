"""What a manifest says of a diff as a whole: its base, its result, and everything around the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from diffpack.format.features import CODE, COPIES, FEATURES, LOWRANK, PATHS, SLICES, STRUCTURE
from diffpack.format.file_names import is_code
from diffpack.format.manifest import CheckpointSummary, Group, Layout, Manifest, ResultSummary, SideFile, Structure
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import Rename
from diffpack.tensors.slices import Assembly

LEFT_OUT = "left out"
"""Under this word a recipe names what of the tuned files the diff does not keep."""
UNKNOWN_FINGERPRINT = "0" * 64
"""Stands for the result's fingerprint until it is computed."""


def base_summary(
    fingerprint: str, tensors: Mapping[str, TensorInfo], name: str | None = None, revision: str | None = None
) -> CheckpointSummary:
    """Count the tensors, entries and bytes of a base; `name` and `revision` are for people."""
    return CheckpointSummary(fingerprint, len(tensors), *_sizes(tensors), name, revision)


def result_summary(fingerprint: str | None, tensors: Mapping[str, TensorInfo]) -> ResultSummary:
    """Count the tensors, entries and bytes of a result; the fingerprint is None where nobody knows it yet."""
    return ResultSummary(fingerprint, len(tensors), *_sizes(tensors))


def _sizes(tensors: Mapping[str, TensorInfo]) -> tuple[int, int]:
    return sum(prod(info.shape) for info in tensors.values()), sum(info.nbytes for info in tensors.values())


def _required(groups: Sequence[Group], layout: Layout | None, files: Sequence[SideFile]) -> set[str]:
    """The features that the codings of groups, and the files around them, need a reader to know."""
    used = {coding for group in groups for coding in (group.position_coding_id, group.value_coding_id)}
    names = [item.name for item in files] + [name for name, _ in (layout.files if layout else ())]
    if any(group.factors is not None for group in groups):
        used.add(LOWRANK)
    if any("/" in name for name in names):
        used.add(PATHS)
    if any(is_code(item.name) for item in files):
        used.add(CODE)
    return used & FEATURES.keys()


def new_manifest(
    base: CheckpointSummary,
    result: ResultSummary,
    groups: Sequence[Group],
    *,
    exact: bool,
    metadata: Mapping[str, str],
    recipe: Mapping[str, str],
    aliases: Mapping[str, str] | None = None,
    removed: Sequence[str] = (),
    rename: Rename = (),
    layout: Layout | None = None,
    files: Sequence[SideFile] = (),
    structure: Structure | None = None,
    copies: Mapping[str, str] | None = None,
    slices: Mapping[str, Assembly] | None = None,
    requires: Sequence[str] = (),
) -> Manifest:
    """Make a manifest, without its chunk table. It requires what its groups need, and `requires`.

    The recipe says for people how entries and values were chosen: all of them, exactly, unless it says otherwise.
    """
    names = [feature for feature, used in ((COPIES, copies), (SLICES, slices)) if used]
    return Manifest(
        base=base,
        result=result,
        exact=exact,
        groups=tuple(groups),
        aliases=dict(aliases or {}),
        removed=tuple(removed),
        rename=rename,
        layout=layout,
        files=tuple(files),
        metadata=dict(metadata),
        recipe={"select": "all", "values": "exact"} | dict(recipe),
        requires=tuple(sorted({*_required(groups, layout, files), *names, *requires})),
        optional=() if structure is None else (STRUCTURE,),
        structure=structure,
        copies=dict(copies) if copies else None,
        slices=dict(slices) if slices else None,
    )

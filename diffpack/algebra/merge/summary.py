"""How large the result of a merge is: counted from the base, or worked out from what the diffs say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.structure import Structure, changed_infos
from diffpack.algebra.trace import added_names
from diffpack.checkpoints import Checkpoint
from diffpack.diff.summary import result_summary
from diffpack.errors import BaseNeededError
from diffpack.format.manifest import ResultSummary
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import own_names

Stored = Mapping[str, tuple[TensorInfo, TensorInfo | None]]
"""The merged records: dtype and shape in the result, and in the base."""


def merged_summary(
    sources: Sequence[Source], plan: Structure, stored: Stored, base: Checkpoint | None
) -> ResultSummary:
    """Count tensors, entries and bytes of the result. The fingerprint stays open.

    Raises `BaseNeededError` if tensors come and go so that the diffs alone do not tell.
    """
    if base is not None:
        return _counted(plan, stored, base, sources[0].diff.manifest.rename)
    first = sources[0]
    manifest = first.diff.manifest
    changed = {name: infos for name, infos in stored.items() if infos[0] != infos[1]}
    same = all(
        changed_infos(source) == changed and set(source.removed) == set(plan.removed) and source.aliases == plan.aliases
        for source in sources
    )
    if same:  # then the result has the tensors every single result has
        return ResultSummary(None, manifest.result.tensors, manifest.result.entries, manifest.result.bytes)
    new = {name for name, (_, before) in changed.items() if before is None}
    known = new <= {name for source in sources for name in _added(source)}
    if plan.removed or plan.aliases or not known:
        raise BaseNeededError(
            "the diffs remove, replace or tie different tensors: give the base, which tells what is left"
        )
    before = manifest.base

    def grown(measure: Callable[[TensorInfo], int]) -> int:
        return sum(measure(info) - (measure(old) if old else 0) for info, old in changed.values())

    entries, nbytes = before.entries + grown(_entries), before.bytes + grown(lambda info: info.nbytes)
    return ResultSummary(None, before.tensors + len(new), entries, nbytes)


def _counted(plan: Structure, stored: Stored, base: Checkpoint, rename: Sequence[tuple[str, str]]) -> ResultSummary:
    gone = set(plan.removed)
    infos = {name: base.info(own) for name, own in own_names(base.tensors, rename).items() if name not in gone}
    infos |= {name: info for name, (info, _) in stored.items()}
    infos |= {name: infos[target] for name, target in plan.aliases.items()}
    return result_summary(None, infos)


def _added(source: Source) -> set[str]:
    """The tensors a diff surely adds to those of the base."""
    added = added_names(source.diff) or frozenset()
    return {name for name in [*source.stored, *source.aliases] if source.own(name) in added}


def _entries(info: TensorInfo) -> int:
    return prod(info.shape)

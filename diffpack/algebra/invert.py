"""invert: an exact diff -> its undo, the exact diff from the result back to the base.

Steps are integers modulo 2^w, so a change is undone by its negative, without the base.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.algebra.chain import Chain
from diffpack.algebra.checks import check_base, check_exact
from diffpack.algebra.resolve import by_own_names
from diffpack.algebra.steps import moved, negated
from diffpack.algebra.trace import Lineage, added_names, trace
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diff
from diffpack.diff.entries import Entry, check_profile, exact_entry, write_entries
from diffpack.diff.layout import layout_of_undo
from diffpack.diff.publish import write_diff
from diffpack.diff.record import TensorDiff
from diffpack.diff.sidefiles import files_of_undo
from diffpack.diff.structure import structure_of_undo
from diffpack.diff.summary import new_manifest
from diffpack.errors import BaseNeededError
from diffpack.format.manifest import CheckpointSummary, to_json
from diffpack.format.writer import ContainerWriter
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.name_rules import rules_for
from diffpack.tensors.rename import Rename, Renamer, free_names, own_names

Job = Callable[[], Entry]


@dataclass(frozen=True)
class _Plan:
    """What the undo says: a job for each record (by name, with what it gives), and what comes and goes."""

    jobs: Mapping[str, tuple[TensorInfo, Job]]
    removed: tuple[str, ...]
    rename: Rename = ()


@memory_told
def invert(
    diff: DiffLike,
    output: str | os.PathLike[str] | None = None,
    *,
    base: CheckpointLike | None = None,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Make the exact undo of an exact diff: applied to the result, it gives the base back, bit for bit.

    Changed and new tensors and grown ones are undone without the base. Removed, cut, retyped, renamed and tied
    tensors need it, and so do the base's file layout and side files where they differ from the result's: without
    `base` the undo then gives the tensors, in files laid out as the result's are.

    Raises `UsageError` (lossy values), `WrongBaseError`, `BaseNeededError`, `CorruptFileError`.
    """
    check_profile(profile)
    opened = open_diff(diff)
    check_exact(opened, "inverted")
    checkpoint = None if base is None else open_checkpoint(base)
    inputs = Inputs(files_behind([opened], checkpoint))
    if checkpoint is not None:
        check_base(opened, checkpoint, threads)
    opened = by_own_names(opened, checkpoint, threads)
    body = partial(
        _write, diff=opened, base=checkpoint, profile=profile, notes=dict(metadata or {}), threads=threads,
        progress=progress,
    )  # fmt: skip
    return write_diff(output, inputs, force, body)


def _write(
    file: BinaryIO,
    diff: Diff,
    base: Checkpoint | None,
    profile: str,
    notes: dict[str, str],
    threads: int | None,
    progress: Progress | None,
) -> None:
    plan = _plan_alone(diff) if base is None else _plan_with(diff, base)
    writer = ContainerWriter(file)
    total = sum(info.nbytes for info, _ in plan.jobs.values())
    groups = write_entries(writer, _entries(plan, threads), profile, threads=threads, progress=progress, total=total)
    layout = layout_of_undo(writer, diff, base, profile)
    files = files_of_undo(writer, diff, base, profile)
    before, after = diff.manifest.base, diff.manifest.result
    assert after.fingerprint is not None  # the diff is exact
    manifest = new_manifest(
        CheckpointSummary(after.fingerprint, after.tensors, after.entries, after.bytes),
        replace(before, name=None, revision=None),
        groups,
        exact=True,
        metadata=notes,
        recipe={"inverse": "of another diff"},
        removed=plan.removed,
        rename=plan.rename,
        layout=layout,
        files=files,
        structure=structure_of_undo(diff, base),
    )
    writer.finish(to_json(manifest))


def _entries(plan: _Plan, threads: int | None) -> Iterator[Entry]:
    for entry in run_in_order((plan.jobs[name][1] for name in sorted(plan.jobs)), threads):
        if not entry.unchanged:
            yield entry


def _plan_alone(diff: Diff) -> _Plan:
    """Plan the undo from the diff alone. Raises `BaseNeededError` saying what it lacks."""
    manifest = diff.manifest
    reasons = []
    if manifest.removed:
        reasons.append(f"removed {listed([printable(name) for name in manifest.removed])}")
    if manifest.rename:
        reasons.append("renamed tensors")
    added = added_names(diff)
    kept = {name: record for name, record in diff.items() if record.base is not None}
    replaced = [name for name in [*diff, *manifest.aliases] if name not in kept and name not in (added or ())]
    if replaced:
        reasons.append(f"may have replaced {listed([printable(name) for name in replaced])}")
    lost = [name for name, record in kept.items() if not _reversible(record)]
    if lost:
        reasons.append(f"cut or retyped {listed([printable(name) for name in lost])}")
    if reasons:
        raise BaseNeededError(f"{diff.name}: {'; '.join(reasons)}: give the base, which has what is lost")
    jobs = {name: (record.base or record.info, partial(_undone, diff, record)) for name, record in kept.items()}
    return _Plan(jobs, tuple(sorted(added or ())))


def _reversible(record: TensorDiff) -> bool:
    """Tell whether the result still has, in other words, every entry of the base tensor."""
    base, info = record.base, record.info
    same = base is not None and base.dtype == info.dtype
    return same and base is not None and all(a <= b for a, b in zip(base.shape, info.shape, strict=True))


def _undone(diff: Diff, record: TensorDiff, name: str | None = None) -> Entry:
    """The record that takes a reversible one back, under the base's name of the tensor."""
    assert record.base is not None
    parts = negated(record.changes())
    if record.base.shape != record.info.shape:
        parts = iter(moved(parts, record.info, record.base))
    base_digest, digest = diff.digests(record.name)
    return Entry(record.name if name is None else name, record.base, record.info, digest, base_digest, tuple(parts))


def _plan_with(diff: Diff, base: Checkpoint) -> _Plan:
    """Plan the undo with the base at hand, which has all that the diff does not tell."""
    state = trace([diff], base.tensors)
    chain = Chain([diff], state, base)
    view = own_names(base.tensors, state.rename)  # the diff's name of a base tensor -> the base's own
    there = {name for name, lineage in state.known.items() if lineage is not None}
    kept = {name: own for name, own in view.items() if name in there}
    rename = _back(there, kept, set(view.values()), diff.manifest.rename)
    jobs = {}
    for name, own in view.items():
        lineage = state.known[name]
        if lineage == Lineage(name):
            continue
        jobs[own] = (base.info(own), partial(_restored, chain, own, name, lineage))
    called = Renamer(rename)
    gone = sorted(called(name) for name in there if name not in view)
    return _Plan(jobs, tuple(gone), rename)


def _restored(chain: Chain, own: str, name: str, lineage: Lineage | None) -> Entry:
    """The record that leads from the result's tensor of a name, if there is one, back to the base's `own`."""
    assert chain.base is not None
    if lineage is not None and lineage.origin == name and len(lineage.records) == 1:
        record = chain.record(lineage.records[0])
        if _reversible(record):
            return _undone(chain.diffs[0], record, own)
    result = None if lineage is None else (chain.info(lineage), chain.words(lineage))
    return exact_entry(own, chain.base.info(own), chain.base.words(own), result)


def _back(names: set[str], wanted: Mapping[str, str], owns: set[str], rules: Rename) -> Rename:
    """Rules that take the result's names back to the base's: the diff's own turned round, if that does.

    Names that are not wanted go to none of the base's own names: tensors of theirs may come back.
    """
    turned = tuple((new, old) for old, new in rules)
    called = Renamer(turned)
    back = {name: called(name) for name in names}
    clash = any(back[name] in owns for name in names - set(wanted))
    if not clash and all(back[name] == own for name, own in wanted.items()) and len(set(back.values())) == len(names):
        return turned
    others = {name: name for name in sorted(names - set(wanted))}
    return rules_for({**wanted, **free_names(others, owns)})

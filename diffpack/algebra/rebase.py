"""rebase: the change a diff makes, carried over to another base."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

import numpy as np
from msgspec.structs import replace as with_members

from diffpack.algebra.checks import check_base
from diffpack.algebra.delta import Delta
from diffpack.algebra.delta_source import Source
from diffpack.algebra.kept import kept_entry, kept_recipe, on_factors, whole_groups
from diffpack.algebra.lifted import Lifted, lifted
from diffpack.algebra.missed import Missed
from diffpack.algebra.other_base import OtherBase
from diffpack.algebra.resolve import by_own_names
from diffpack.algebra.sums import OVERFLOW, Sums
from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diff
from diffpack.diff.entries import Entry, check_profile, write_entries
from diffpack.diff.group_decoder import Changes
from diffpack.diff.publish import write_diff
from diffpack.diff.relative_error import ERROR, with_errors
from diffpack.diff.stored_chunks import copy_chunks
from diffpack.diff.summary import UNKNOWN_FINGERPRINT, base_summary, new_manifest, result_summary
from diffpack.errors import BaseNeededError
from diffpack.format.manifest import Group, digest_column, to_json
from diffpack.format.values.floats import F32
from diffpack.format.values.grid import GRID
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.digests import combine
from diffpack.tensors.info import TensorInfo


@dataclass(frozen=True)
class Rebased:
    """A diff for the other base, the tensors it carries over bit for bit or as floats, and why others are left out.

    `notes` are remarks for people.
    """

    diff: Diff
    exact: tuple[str, ...]
    as_floats: tuple[str, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...] = ()


@memory_told
def rebase(
    diff: DiffLike,
    onto: CheckpointLike,
    output: str | os.PathLike[str] | None = None,
    *,
    base: CheckpointLike | None = None,
    clip: bool = False,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Rebased:
    """Make a diff of `onto` that changes it as `diff` changes its own base.

    A tensor that both bases have alike is carried over as it is. Where they differ, float tensors get the same float
    differences (tuned - base, added in float32 and rounded once), for which an exact diff needs `base`; the result is
    then lossy. What cannot be carried over is left as `onto` has it, and said: tensors that are missing, of another
    dtype or shape, not floats, or changed by more than float32 holds, and what is tied to them. Tensors that the diff
    makes of others (fused ones) are made of those of `onto`. New tensors come along; layout and side files do not. The
    error of what is carried over is recorded: sums are rounded to their dtype; that of a lossy diff stays unknown.
    Values on a grid, and low-rank factors, stay so unless a tensor coded with them is left out or clipped.
    Where `onto` has the base's tensors under names with another prefix, they are found; the result is named as the
    diff's is. Sums that the result's dtype cannot hold are refused, or with `clip` end at its largest finite number.

    Raises `WrongBaseError` (`base` is not the diff's), `BaseNeededError`, `UsageError` (sums beyond a dtype, too),
    `CorruptFileError`.
    """
    check_profile(profile)
    opened, target = open_diff(diff), open_checkpoint(onto)
    before = None if base is None else open_checkpoint(base)
    inputs = Inputs(files_behind([opened], target, before))
    if before is not None:
        check_base(opened, before, threads)
    lift = lifted([opened], before, threads)
    opened = by_own_names(opened, before, threads) if lift is None else opened
    other = onto_it = OtherBase.find(opened, before, target, threads)
    if lift is not None and before is not None:
        other = onto_it.lifted(lift.manifest, before, threads)
        opened, before = lift.diffs[0], lift.base
    job = _Rebase(Source(opened, before), other, profile, threads, progress, metadata, Sums(clip))
    write = job.write if lift is None else partial(_write_lowered, job=job, lift=lift, onto=onto_it)
    written = write_diff(output, inputs, force, write)
    carried = [name for name in opened if name not in job.left_out]
    floats_of = tuple(name for name in carried if job.changes_floats(name))
    exact = tuple(name for name in carried if name not in floats_of)
    return Rebased(written, exact, floats_of, dict(job.left_out), tuple(job.notes))


def _write_lowered(file: BinaryIO, job: _Rebase, lift: Lifted, onto: OtherBase) -> None:
    """Write what is a diff of lifted bases as one of the other base as it is."""
    made = write_diff(None, Inputs([]), False, job.write)
    lift.write_lowered(file, made, replace(onto, lacking=job.onto.lacking))


class _Rebase:
    """One rebase: what happens to each record, and the writing of them."""

    def __init__(
        self, source: Source, onto: OtherBase, profile: str, threads: int | None, progress: Progress | None,
        metadata: Mapping[str, str] | None, sums: Sums,
    ) -> None:  # fmt: skip
        self.source = source
        self.onto = onto
        self.profile = profile
        self.threads = threads
        self.progress = progress
        self.sums = sums
        self.missed = Missed()
        self._steps = all(record.exact for record in source.diff.values())
        self.notes: list[str] = []
        self.metadata = dict(source.diff.metadata if metadata is None else metadata)
        reasons = {name: self._reason(name) for name in source.diff}
        self.left_out = {**onto.lacking, **{name: reason for name, reason in reasons.items() if reason}}

    def _alike(self, name: str) -> bool:
        return self.source.diff.digests(name)[0] == self.onto.digest(name)

    def _reason(self, name: str) -> str:
        """Say why a record cannot be carried over ("" if it can)."""
        record = self.source.diff[name]
        if record.base is None or name in self.onto.lacking:
            return ""
        info = self.onto.info(name)
        if info is None:
            return "missing"
        if info != record.base:
            return f"is {info}, not {record.base}"
        if not self._alike(name) and not record.info.dtype.arithmetic:
            return f"{record.dtype} entries that differ are not added to"
        if record.kind != "changed" and not self._alike(name) and self.onto.overflows(record):
            return f"has entries that are more than {record.dtype} holds"
        return ""

    def changes_floats(self, name: str) -> bool:
        """Whether a record is carried over as float differences: its values are, or its base tensors differ."""
        record = self.source.diff[name]
        return not record.exact or (record.base is not None and not self._alike(name))

    def _entries(self, names: Sequence[str]) -> Iterator[Entry]:
        """What is written of records; those that cannot be written are left out, with the reason."""
        made = run_in_order((partial(self._watched, name) for name in names), self.threads)
        for name, entry in zip(names, made, strict=True):
            if entry is None:
                self.left_out[name] = "changes by more than float32 holds"
            elif not entry.unchanged:
                yield entry

    def _watched(self, name: str) -> Entry | None:
        made = self._entry(name)
        if made is None:
            return None
        reference = self.onto.reference(self.source.diff[name])
        entry, delta = self.sums.entry(made[0], reference), made[1]
        if delta is not None and entry.parts:
            self.missed.measure(entry, [(0, delta.positions, delta.values)], reference)
        elif self.source.based and entry.base is not None and entry.info.dtype.arithmetic and self._steps:
            self.missed.nothing(name, self.source.change(name).values)
        return entry

    def _entry(self, name: str) -> tuple[Entry, Delta | None] | None:
        """Make a record for the other base, and what it was to change as floats if it was made of these.

        None if its differences are no finite float32 numbers.
        """
        record, diff = self.source.record(name), self.source.diff
        digest = None if record.base is None else self.onto.digest(name)
        if not record.exact or not self.changes_floats(name):
            kept = None if self.changes_floats(name) else diff.digests(name)[1]
            return replace(kept_entry(diff, record, name), base_digest=digest, digest=kept), None
        if not self.source.based:
            where = f"{diff.name}: {printable(name)}"
            raise BaseNeededError(f"{where} is stored as steps, and the bases differ: give the diff's base")
        delta = self.source.change(name)
        with np.errstate(over="ignore"):
            if not np.isfinite(delta.values.astype(np.float32)).all():
                return None
        numbers = F32.numbers(delta.values)
        numbers = np.where(delta.values == 0, numbers.dtype.type(0), numbers)
        parts = (Changes(0, record.info.words, delta.positions, numbers),) if record.info.words else ()
        return Entry(name, record.info, record.base, digest, None, parts, F32), delta

    def _copied(self, writer: ContainerWriter) -> list[Group]:
        """Write the groups that stay as they are, chunk for chunk, and give them with the other base's digests.

        Not those with a tensor that is left out, or whose sums the dtype cannot hold.
        """
        groups = []
        for decoder in whole_groups(self.source.diff, self.left_out):
            group = decoder.group
            if decoder.position_coding.needs_base(group) or not self._hold(group.names):
                continue
            copy_chunks(writer, self.source.diff, decoder.chunks)
            digests = None
            if group.base_dtype is not None:
                digests = digest_column(self.onto.digest(name) for name in group.names)
            groups.append(with_members(group, base_digests=digests, result_digests=None, errors=None))
        return groups

    def _hold(self, names: Sequence[str]) -> bool:
        records = [self.source.record(name) for name in names]
        jobs = (partial(self.sums.hold, record, self.onto.reference(record)) for record in records)
        return all(run_in_order(jobs, self.threads))

    def _untied(self, name: str, target: str, infos: Mapping[str, TensorInfo]) -> str:
        """Say why a tensor cannot be tied to its target ("" if it can); `infos` are the result's but for ties."""
        if target not in infos:
            return f"tied to {printable(target)}, which is missing"
        if target in self.left_out:
            return f"tied to {printable(target)}, which is left out"
        own = self.onto.info(name)
        if target not in self.source.diff and own not in (None, infos[target]):
            return f"is {own}, and tied to {printable(target)}, which is {infos[target]}"
        return ""

    def write(self, file: BinaryIO) -> None:
        """Write the diff."""
        old = self.source.diff.manifest
        writer = ContainerWriter(file)
        names = [name for name in self.source.diff if name not in self.left_out]
        total = sum(self.source.diff[name].info.nbytes for name in names)
        groups = self._copied(writer)
        rest = sorted({*names}.difference(*(group.names for group in groups)))
        groups += write_entries(
            writer, self._entries(rest), self.profile, threads=self.threads, progress=self.progress, total=total
        )
        self.notes += on_factors(self.source.diff, rest, "others coded with them cannot be carried over as they are")
        self.sums.refuse(f"{self.source.diff.name}: rebase", "clip=True (--clip) ends them there")
        names = [name for name in names if name not in self.left_out]
        whole = not self.left_out and not any(self.changes_floats(name) for name in names)
        removed = tuple(name for name in old.removed if name in self.onto.view and name not in self.onto.kept)
        infos = {name: self.onto.checkpoint.info(own) for name, own in self.onto.view.items() if name not in removed}
        infos |= {name: self.source.diff[name].info for name in names}
        untied = {name: self._untied(name, target, infos) for name, target in old.aliases.items()}
        self.left_out |= {name: reason for name, reason in untied.items() if reason}
        aliases = {name: target for name, target in old.aliases.items() if not untied[name]}
        infos |= {name: infos[target] for name, target in aliases.items()}
        steps_no_more = any(self.source.diff[name].exact and self.changes_floats(name) for name in names)
        on_grid = any(group.value_coding_id == GRID.id for group in groups)
        coding = {"values": F32.id} if steps_no_more and not on_grid else {}
        said = kept_recipe(old.recipe, groups)
        said = {key: text for key, text in said.items() if key not in (OVERFLOW, ERROR)}  # sums are checked here
        if not self._steps:
            said[ERROR] = "not known: what is carried over is lossy"
        base = self.onto.checkpoint
        fingerprint = combine(base.tensors, self.onto.digests)
        manifest = new_manifest(
            base_summary(fingerprint, base.tensors),
            result_summary(UNKNOWN_FINGERPRINT, infos),
            groups,
            exact=self.source.diff.exact and whole and aliases == old.aliases and removed == old.removed,
            aliases=aliases,
            removed=removed,
            rename=self.onto.rename,
            metadata=self.metadata,
            recipe={**said, **coding, **self.sums.recipe(), "rebased": f"from {old.base.fingerprint[:16]}"},
        )
        if self._steps and not manifest.exact:
            manifest = with_errors(manifest, self.missed.missed, self.missed.moved)
        self._note()
        manifest, _ = with_result_fingerprint(file, writer, manifest, base, self.threads)
        writer.finish(to_json(manifest))

    def _note(self) -> None:
        self.notes += self.sums.notes()
        if beside := [item.name for item in self.source.diff.manifest.files]:
            self.notes.append(f"side files do not come along, the other base has its own: {listed(beside)}")
        if self.onto.rename != self.source.diff.manifest.rename:
            rules = (
                ", ".join(f"{printable(old)}* -> {printable(new)}*" for old, new in self.onto.rename) or "as they are"
            )
            self.notes.append(f"the other base has its tensors under other names: {rules}")

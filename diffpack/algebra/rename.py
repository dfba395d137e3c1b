"""rename: a diff -> the diff of the same base whose result has other names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.algebra.checks import check_base
from diffpack.algebra.kept import kept_entry, kept_recipe, on_factors
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diff
from diffpack.diff.entries import Entry, check_profile, write_entries
from diffpack.diff.publish import write_diff
from diffpack.diff.renamed_layout import renamed_layout
from diffpack.diff.stored_chunks import copy_chunks
from diffpack.diff.summary import UNKNOWN_FINGERPRINT, new_manifest
from diffpack.errors import BaseNeededError, CorruptFileError, ResultMismatchError, UsageError
from diffpack.format.features import UNSEALED
from diffpack.format.manifest import Group, Layout, Manifest, to_json
from diffpack.format.positions.rule import BY_RULE
from diffpack.format.positions.rule_words import Rule
from diffpack.format.writer import ContainerWriter
from diffpack.result.result import Result
from diffpack.result.seal import check_of
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.digests import combine
from diffpack.tensors.name_rules import rules_for
from diffpack.tensors.rename import Rename, Renamer, compose_rename, own_names
from diffpack.tensors.rename_patterns import Renaming, called, checked, only_prefixes, rename_rules, unused
from diffpack.tensors.slices import Assembly


@dataclass(frozen=True)
class Renamed:
    """A diff whose result has other names; `notes` are remarks for people."""

    diff: Diff
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Names:
    """What each name in a diff becomes, and the rules that lead from the base's own names to the new ones."""

    new: Mapping[str, str]
    rules: Rename

    def all(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.new[name] for name in names)

    def pairs(self, pairs: Mapping[str, str]) -> dict[str, str]:
        return {self.new[name]: self.new[other] for name, other in pairs.items()}

    def slices(self, slices: Mapping[str, Assembly]) -> dict[str, Assembly]:
        return {self.new[name]: assembly.renamed(self.new) for name, assembly in slices.items()}

    @property
    def changes(self) -> bool:
        return any(name != new for name, new in self.new.items())


@memory_told
def rename(
    diff: DiffLike,
    renaming: Renaming,
    output: str | os.PathLike[str] | None = None,
    *,
    base: CheckpointLike | None = None,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Renamed:
    """Give the tensors of a diff's result other names: the same base, the same bits.

    `renaming` is as in `extract`, but for the names of the result: (old, new) pairs, of which the first that fits is
    taken, old being a prefix or a compiled pattern; or a function. The result's fingerprint depends on all names, and
    those of tensors that the diff does not touch only the base has, so `base` is needed, unless the fingerprint is
    open already (a merge made without its base) and `renaming` is prefixes. The result is made and compared on the way.

    Changes are not coded anew unless their tensors come in another order by their new names: then those on a grid, and
    with low-rank factors, become float32 values. A layout is kept with the
    new names; the structure of an HDF5 file is left out.

    Raises `BaseNeededError`, `WrongBaseError`, `UsageError` (two tensors of one name, patterns that fit nothing),
    `ResultMismatchError`, `CorruptFileError`.
    """
    check_profile(profile)
    given = checked(renaming)
    opened = open_diff(diff)
    checkpoint = None if base is None else open_checkpoint(base)
    if checkpoint is None and (opened.manifest.result.fingerprint is not None or not only_prefixes(given)):
        raise BaseNeededError(
            f"{opened.name}: the result's fingerprint depends on the names of all its tensors, and those that are not "
            "changed only the base has: give the base"
        )
    inputs = Inputs(files_behind([opened], checkpoint))
    job = _Rename(opened, checkpoint, given, profile, metadata, threads, progress)
    return Renamed(write_diff(output, inputs, force, job.write), tuple(job.notes))


@dataclass
class _Rename:
    """One renaming: its inputs, and remarks that grow."""

    diff: Diff
    base: Checkpoint | None
    renaming: Renaming
    profile: str
    metadata: Mapping[str, str] | None
    threads: int | None
    progress: Progress | None
    notes: list[str] = field(default_factory=list)

    def write(self, file: BinaryIO) -> None:
        """Write the diff."""
        old = self.diff.manifest
        result = None if self.base is None else Result(self.diff, self.base)
        names = _names_alone(self.diff, self.renaming) if result is None else _names(result, self.renaming)
        known = names.new if result is None else result.tensors
        self.notes += unused(self.renaming, known, f"the result of {self.diff.name}")
        writer = ContainerWriter(file)
        groups = self._groups(writer, names, result)
        layout = self._layout(writer, names)
        self._side_files(writer)
        structure = old.structure
        if structure is not None and names.changes:
            self.notes.append("the structure of the HDF5 file is that of the old names: left out")
            structure = None
        unsealed = UNSEALED in old.requires
        manifest = new_manifest(
            old.base,
            old.result if unsealed else replace(old.result, fingerprint=UNKNOWN_FINGERPRINT),
            groups,
            exact=old.exact,
            metadata=self.diff.metadata if self.metadata is None else self.metadata,
            recipe=kept_recipe(old.recipe, groups),
            aliases=names.pairs(old.aliases),
            removed=tuple(sorted(names.all(old.removed))),
            rename=names.rules,
            layout=layout,
            files=old.files,
            structure=structure,
            copies=names.pairs(old.copies or {}),
            slices=names.slices(old.slices or {}),
            requires=(UNSEALED,) if unsealed else (),
        )
        manifest = replace(manifest, error=old.error)
        if result is not None:
            if unsealed:
                check_base(self.diff, result.base, self.threads)
            else:
                manifest = self._sealed(file, writer, manifest, result, names)
        writer.finish(to_json(manifest))

    def _groups(self, writer: ContainerWriter, names: _Names, result: Result | None) -> list[Group]:
        """Write the groups: as they are where their order stays, else anew."""
        groups: list[Group] = []
        others: list[str] = []
        for decoder in self.diff.decoders:
            new = names.all(decoder.group.names)
            if list(new) == sorted(new) and not _by_name(decoder.group):
                copy_chunks(writer, self.diff, decoder.chunks)
                resized = {names.new[name]: shape for name, shape in decoder.group.resized.items()}
                groups.append(replace(decoder.group, names=new, resized=resized))
            else:
                others += decoder.group.names
        self.notes += on_factors(self.diff, others, "their order is another by the new names")
        if others:
            records = self.diff if result is None else result.records
            jobs = (
                partial(kept_entry, self.diff, records[name], names.new[name])
                for name in sorted(others, key=lambda name: names.new[name])
            )
            entries: Iterator[Entry] = run_in_order(jobs, self.threads)
            total = sum(self.diff[name].info.nbytes for name in others)
            written = write_entries(
                writer, entries, self.profile, threads=self.threads, progress=self.progress, total=total
            )
            groups += self._with_errors(written, names)
        return groups

    def _with_errors(self, groups: Sequence[Group], names: _Names) -> list[Group]:
        """Groups that were written anew, with the errors that the diff records of their tensors."""
        known = {
            names.new[name]: error
            for decoder in self.diff.decoders
            for name, error in zip(decoder.group.names, decoder.group.errors or (), strict=False)
        }
        return [
            replace(group, errors=tuple(known.get(name, 0) for name in group.names))
            if not known.keys().isdisjoint(group.names)
            else group
            for group in groups
        ]

    def _layout(self, writer: ContainerWriter, names: _Names) -> Layout | None:
        layout = self.diff.manifest.layout
        if layout is None or names.changes:
            layout, remark = renamed_layout(writer, self.diff, self.base, names.new, self.profile)
            self.notes += [remark] if remark else []
        elif layout.stored:
            copy_chunks(writer, self.diff, [self.diff.coded_chunks])
        return layout

    def _side_files(self, writer: ContainerWriter) -> None:
        layout = self.diff.manifest.layout
        first = self.diff.coded_chunks + int(layout is not None and layout.stored)
        copy_chunks(writer, self.diff, range(first, len(self.diff.chunks)))

    def _sealed(
        self, file: BinaryIO, writer: ContainerWriter, manifest: Manifest, result: Result, names: _Names
    ) -> Manifest:
        """The manifest with the fingerprint of the result, which is the old one's but for its names."""
        check = check_of(file, writer, manifest, result.base, self.threads)
        assert check.result is not None
        before = {name: check.digests[names.new[name]] for name in result.tensors}
        if check.wrong or combine(result.tensors, before) != self.diff.manifest.result.fingerprint:
            which = f": {listed([printable(name) for name in check.wrong])}" if check.wrong else ""
            raise ResultMismatchError(f"{self.diff.name}: gives another result than it records{which} [A6]")
        return replace(manifest, result=replace(manifest.result, fingerprint=check.result))


def _by_name(group: Group) -> bool:
    """Whether positions are drawn by the names of the tensors."""
    rule = Rule.parse(group.rule or "") if group.position_coding_id == BY_RULE.id else None
    return rule is not None and not rule.by_weight


def _names(result: Result, renaming: Renaming) -> _Names:
    """The new names of a diff with its base. Raises `UsageError` if two tensors get one."""
    manifest, base = result.diff.manifest, result.base
    wanted = called(renaming, result.tensors, f"the result of {result.diff.name}")
    _check_unique(wanted)
    view = own_names(base.tensors, manifest.rename)
    kept = {own: wanted[name] for name, own in view.items() if name in wanted}
    for name in manifest.removed:  # a live model need not have it to be a base
        if name not in view and name not in wanted:
            raise CorruptFileError(f"{result.diff.name}: removes {printable(name)}, which its base has not", "A3")
    gone = {name: own for name, own in view.items() if name not in wanted}
    rules = rules_for(kept, gone.values(), wanted.values())
    new = Renamer(rules)
    return _Names(wanted | {name: new(own) for name, own in gone.items()}, rules)


def _names_alone(diff: Diff, renaming: Renaming) -> _Names:
    """The new names of a diff without its base, which prefixes alone tell. Raises `UsageError` if two are the same."""
    manifest = diff.manifest
    copies, slices = manifest.copies or {}, manifest.slices or {}
    rules = rename_rules(renaming, (), diff.name)
    new = Renamer(rules)
    names: Sequence[str] = [*diff, *manifest.aliases, *manifest.aliases.values(), *manifest.removed, *copies]
    sources = [source for assembly in slices.values() for source in assembly.sources]
    wanted = {name: new(name) for name in [*names, *copies.values(), *slices, *sources]}
    _check_unique(wanted)
    return _Names(wanted, compose_rename(manifest.rename, rules))


def _check_unique(wanted: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for name, new in wanted.items():
        if first.setdefault(new, name) != name:
            raise UsageError(f"renaming gives both {first[new]!r} and {name!r} the name {new!r}")

"""A merge under way: what becomes of each tensor, the records one by one, the manifest around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.choices import Choices
from diffpack.algebra.merge.heads import Heads, find_heads
from diffpack.algebra.merge.labels import label_names
from diffpack.algebra.merge.method import Method
from diffpack.algebra.merge.origin import files_from
from diffpack.algebra.merge.per_tensor import Layers, check_patterns
from diffpack.algebra.merge.rows import check_tokens, vocabularies
from diffpack.algebra.merge.structure import Structure, Wishes, structure
from diffpack.algebra.merge.summary import merged_summary
from diffpack.algebra.merge.tensors import Merged, Merger
from diffpack.algebra.missed import Missed
from diffpack.algebra.shared_names import share_names
from diffpack.algebra.sums import NOT_CHECKED, OVERFLOW, Sums
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.entries import Entry, write_entries
from diffpack.diff.relative_error import ERROR, with_errors
from diffpack.diff.sidefiles import inherited_files
from diffpack.diff.summary import UNKNOWN_FINGERPRINT, new_manifest
from diffpack.errors import BaseNeededError
from diffpack.format.features import UNSEALED
from diffpack.format.manifest import SideFile, to_json
from diffpack.format.values import ValueCoding
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import own_names


@dataclass
class MergeJob:
    """One merge under way; the counts grow as tensors are merged."""

    diffs: Sequence[Diff]
    method: Method
    choices: Choices
    wishes: Wishes
    base: Checkpoint | None
    value_coding: ValueCoding
    profile: str
    metadata: dict[str, str]
    threads: int | None
    progress: Progress | None
    sums: Sums
    notes: list[str]
    missed: Missed = field(default_factory=Missed)
    stored: dict[str, tuple[TensorInfo, TensorInfo | None]] = field(default_factory=dict)
    shared: int = 0
    conflicts: int = 0

    def write(self, file: BinaryIO) -> None:
        """Write the merged diff."""
        names = share_names(self.diffs, self.base)
        sources = [Source(diff, self.base, shared) for diff, shared in zip(self.diffs, names, strict=True)]
        plan = structure(sources, self.wishes)
        merger = self._merger(sources, plan)
        writer = ContainerWriter(file)
        total = sum(self._nbytes(sources, name) for name in plan.stored)
        entries = self._entries(merger, plan.stored)
        groups = write_entries(writer, entries, self.profile, threads=self.threads, progress=self.progress, total=total)
        self.sums.refuse("merge", "clip=True (--clip) ends them there; smaller weights or a smaller scale avoid them")
        files = self._files(writer, merger)
        self._note(merger.heads)
        summary = merged_summary(sources, plan, self.stored, self.base)
        first = self.diffs[0].manifest
        based = self.base is not None
        manifest = new_manifest(
            first.base,
            replace(summary, fingerprint=UNKNOWN_FINGERPRINT if based else None),
            groups,
            exact=False,
            metadata=self.metadata,
            recipe=self._recipe(),
            aliases=plan.aliases,
            removed=plan.removed,
            rename=first.rename,
            files=files,
            requires=() if based else (UNSEALED,),
        )
        if self.base is not None:
            manifest = with_errors(manifest, self.missed.missed, self.missed.moved)
            manifest, _ = with_result_fingerprint(file, writer, manifest, self.base, self.threads)
        writer.finish(to_json(manifest))

    def _merger(self, sources: Sequence[Source], plan: Structure) -> Merger:
        """Find out what there is to know of all tensors before the first is merged."""
        known = {name for source in sources for name in [*source.stored, *source.aliases, *source.removed]}
        if self.base is not None:
            known |= own_names(self.base.tensors, self.diffs[0].manifest.rename).keys()
        for what, item in self.choices.per_tensor():
            check_patterns(what, item.patterns, known)
        layers = None
        if self.choices.needs_layers():
            if self.base is None:
                raise BaseNeededError("numbers along the layers: only the base tells how many there are: give the base")
            layers = Layers(known)
        merged = [name for name in plan.stored if name not in plan.taken]
        unions = vocabularies(merged, sources)
        check_tokens(unions, sources, self.base, self.wishes)
        labels = [label_names(diff, self.base) for diff in self.diffs]
        heads = find_heads(merged, sources, labels, self.wishes, unions)
        return Merger(
            sources, self.method, self.choices, layers, plan, heads, unions, self.value_coding, self.sums, self.missed
        )

    def _files(self, writer: ContainerWriter, merger: Merger) -> tuple[SideFile, ...]:
        """Keep the side files of the diff that heads come from; none, which means the base's, if there is no such."""
        origin = files_from(merger.sources, merger.plan, merger.unions, self.notes)
        return () if origin is None else inherited_files(writer, [origin], self.profile)

    def _nbytes(self, sources: Sequence[Source], name: str) -> int:
        return next(source.infos(name)[0].nbytes for source in sources if source.brings(name))

    def _entries(self, merger: Merger, names: Sequence[str]) -> Iterator[Entry]:
        jobs = (partial(merger.merged, name) for name in names)
        for merged in run_in_order(jobs, self.threads):
            self._count(merged)
            if not merged.entry.unchanged:
                yield merged.entry

    def _count(self, merged: Merged) -> None:
        self.stored[merged.entry.name] = (merged.entry.info, merged.entry.base)
        self.shared += merged.shared
        self.conflicts += merged.conflicts

    def _note(self, heads: Heads) -> None:
        if heads.averaged:
            which = listed([printable(name) for name in sorted(heads.averaged)])
            self.notes.append(
                f"each diff brings its own {which}: merged, since mix says so or their labels are the same"
            )
        self.notes += self.sums.notes()
        if self.base is None:
            self.notes.append(f"whether sums are more than their dtype holds is {NOT_CHECKED}; `apply` tells")

    def _recipe(self) -> dict[str, str]:
        """Say how the merge was made, for people: what was not the default, and where the diffs met."""
        choices, wishes = self.choices, self.wishes
        weights = [str(weight) for weight in choices.weights]
        densities = [str(density) if density is not None else "1" for density in choices.densities]
        pruned = any(density is not None for density in choices.densities)
        said = {
            "select": f"density {_said(densities)}" if pruned else "all",
            "values": self.value_coding.id,
            "merged": f"{len(self.diffs)} diffs by {self.method.name}",
            "shared": str(self.shared),
            "conflicts": str(self.conflicts),
        }
        if choices.t is None:
            said["weights"] = _said(weights, each=True)
        else:
            said["t"] = str(choices.t)
        if self.method.random and pruned:
            said |= {"seed": str(choices.seed), "rescale": choices.rescale}
        if choices.scale.plain != 1:
            said["scale"] = str(choices.scale)
        if choices.normalize is not None:
            said["normalize"] = "yes" if choices.normalize else "no"
        for what, patterns in (("exclude", wishes.exclude), ("mix", wishes.mix)):
            if patterns:
                said[what] = " ".join(patterns)
        if wishes.take:
            said["take"] = " ".join(f"{pattern}={self.diffs[place].name}" for pattern, place in wishes.take.items())
        if self.base is None:
            said |= {OVERFLOW: NOT_CHECKED, ERROR: "not known without the base"}
        return said | self.sums.recipe()


def _said(settings: Sequence[str], *, each: bool = False) -> str:
    """What holds for the diffs, in their order; once if it is the same for all, unless it is to be told of `each`."""
    if not each and len(set(settings)) == 1:
        return settings[0]
    plain = not any(" " in item for item in settings)
    return " ".join(settings) if plain else "; ".join(settings)

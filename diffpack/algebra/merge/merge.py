"""merge: several diffs of one base -> one diff, by a method of the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.algebra.checks import check_base
from diffpack.algebra.delta_source import Source
from diffpack.algebra.merge.method import Method, Settings
from diffpack.algebra.merge.methods import find_method
from diffpack.algebra.merge.summary import merged_summary
from diffpack.algebra.merge.tensors import Merged, merge_tensor, structure
from diffpack.algebra.missed import Missed
from diffpack.algebra.resolve import by_own_names
from diffpack.algebra.shared_names import share_names
from diffpack.algebra.sums import NOT_CHECKED, OVERFLOW, Sums
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diffs
from diffpack.diff.entries import Entry, check_profile, write_entries
from diffpack.diff.publish import write_diff
from diffpack.diff.relative_error import ERROR, with_errors
from diffpack.diff.summary import UNKNOWN_FINGERPRINT, new_manifest
from diffpack.errors import BaseNeededError, UsageError, WrongBaseError
from diffpack.format.chunks import EncodedChunk
from diffpack.format.features import UNSEALED
from diffpack.format.manifest import to_json
from diffpack.format.values import ValueCoding
from diffpack.format.values.floats import F32, FLOATS
from diffpack.format.values.int8 import INT8
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.inputs import Inputs
from diffpack.support.parallel import Progress, run_in_order
from diffpack.tensors.info import TensorInfo

VALUE_CHOICES: dict[str, ValueCoding] = {**FLOATS, INT8.id: INT8}
"""How merged values may be stored: they are floats, so never as steps."""


def merge(
    diffs: DiffLike | Sequence[DiffLike],
    output: str | os.PathLike[str] | None = None,
    *,
    method: str = "linear",
    weights: Sequence[float] | None = None,
    normalize: bool | None = None,
    density: float | None = None,
    scale: float = 1.0,
    seed: int = 0,
    gamma: float = 0.01,
    epsilon: float | None = None,
    rescale: str = "expected",
    base: CheckpointLike | None = None,
    values: str | None = None,
    clip: bool = False,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    notes: list[str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Merge diffs of one base into one diff, which is lossy: its values are floats to add to the base.

    `method` is a name in `METHODS` of this package; `weights` is a number for each diff (default 1), `density` the
    fraction of each tensor's entries that a method keeps of each diff, `scale` multiplies the result (lambda of the
    papers), `normalize` divides by the weights that counted (None: as the method does), `seed` is for random methods,
    `gamma` for breadcrumbs, `epsilon` for della, `rescale` says how random methods make up for what they drop.
    `values` is how merged values are stored (default f32).

    Tensors that are not floats, and new ones that one diff alone has, are taken over as they are; a tensor is removed
    or tied if it is so in every diff. Diffs that rename the base's tensors differently meet by the base's names; the
    merged diff has the names of the first. Exact diffs are decoded against `base`, which they need; with it the
    result's fingerprint is recorded, and sums that the result's dtype cannot hold are refused, or with `clip` end at
    its largest finite number; and so is the error: how far the result, of rounded values and sums, is from the base
    and the merged differences. Without it the merge is unsealed, sums are not checked, no error is known. One diff
    alone, with a weight of 1, is given back as it is. `notes` grow: remarks for people.

    Raises `UsageError` (settings, diffs that cannot be brought together, sums beyond a dtype), `WrongBaseError` (diffs
    of different bases, another base), `BaseNeededError`, `CorruptFileError`.
    """
    check_profile(profile)
    if values is not None and values not in VALUE_CHOICES:
        raise UsageError(f"values of a merge are one of {', '.join(VALUE_CHOICES)}, not {values!r}")
    opened = open_diffs(diffs)
    chosen = find_method(method)
    settings = Settings(
        tuple(float(weight) for weight in weights) if weights is not None else (1.0,) * len(opened),
        density, normalize, scale, seed, gamma, epsilon, rescale,
    )  # fmt: skip
    _check(opened, chosen, settings)
    if clip and base is None:
        raise BaseNeededError("clip: whether a sum is more than its dtype holds only the base tells: give the base")
    checkpoint = None if base is None else open_checkpoint(base)
    inputs = Inputs([*files_behind(opened), *(checkpoint.files if checkpoint else [])])
    if checkpoint is not None:
        check_base(opened[0], checkpoint, threads)
    if values is None and _is_itself(opened, chosen, settings) and (opened[0].exact or not clip):
        if profile == "portable" and "pco" in opened[0].manifest.requires:
            raise UsageError("one diff is given back as it is; that it be portable is chosen where it is made")
        return write_diff(output, inputs, force, partial(_copy, diff=opened[0], metadata=metadata))
    opened = [by_own_names(diff, checkpoint, threads) for diff in opened]
    job = _Merge(
        opened,
        chosen,
        settings,
        checkpoint,
        VALUE_CHOICES[values or F32.id],
        profile,
        dict(metadata or {}),
        threads,
        progress,
        Sums(clip),
        notes if notes is not None else [],
    )
    return write_diff(output, inputs, force, job.write)


def _check(diffs: Sequence[Diff], method: Method, settings: Settings) -> None:
    if not diffs:
        raise UsageError("no diff to merge")
    if len(settings.weights) != len(diffs):
        raise UsageError(f"{len(settings.weights)} weights for {len(diffs)} diffs")
    method.check(settings)
    first = diffs[0]
    for diff in diffs[1:]:
        expected, actual = first.manifest.base.fingerprint, diff.manifest.base.fingerprint
        if expected != actual:
            raise WrongBaseError(
                f"{diff.name}: not a diff of the base of {first.name} (its base is {actual}, that one's {expected})",
                hint="`diffpack rebase` carries a diff over to another base",
            )


def _is_itself(diffs: Sequence[Diff], method: Method, settings: Settings) -> bool:
    """Whether the merge is the one diff it is made of."""
    plain = method.prune is None or settings.density in (None, 1)
    factor = 1.0 if method.normalize else settings.weights[0]
    return len(diffs) == 1 and plain and factor == 1 == settings.scale and settings.normalize is None


def _copy(file: BinaryIO, diff: Diff, metadata: Mapping[str, str] | None) -> None:
    """Write a diff again, chunk by chunk, with other metadata if given."""
    writer = ContainerWriter(file)
    for chunk in diff.chunks:
        writer.add(EncodedChunk(diff.stored(chunk), chunk.digest, chunk.streams))
    manifest = diff.manifest if metadata is None else replace(diff.manifest, metadata=dict(metadata))
    writer.finish(to_json(manifest))


@dataclass
class _Merge:
    """One merge under way; the counts grow as tensors are merged."""

    diffs: Sequence[Diff]
    method: Method
    settings: Settings
    base: Checkpoint | None
    value_coding: ValueCoding
    profile: str
    metadata: dict[str, str]
    threads: int | None
    progress: Progress | None
    sums: Sums
    notes: list[str]
    missed: Missed = field(default_factory=Missed)
    stored: dict[str, TensorInfo] = field(default_factory=dict)
    shared: int = 0
    conflicts: int = 0

    def write(self, file: BinaryIO) -> None:
        names = share_names(self.diffs, self.base)
        sources = [Source(diff, self.base, shared) for diff, shared in zip(self.diffs, names, strict=True)]
        plan = structure(sources)
        writer = ContainerWriter(file)
        total = sum(self._nbytes(sources, name) for name in plan.stored)
        entries = self._entries(sources, plan.stored)
        groups = write_entries(writer, entries, self.profile, threads=self.threads, progress=self.progress, total=total)
        self.sums.refuse("merge", "clip=True (--clip) ends them there; smaller weights or a smaller scale avoid them")
        self._note()
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
            requires=() if based else (UNSEALED,),
        )
        if self.base is not None:
            manifest = with_errors(manifest, self.missed.missed, self.missed.moved)
            manifest, _ = with_result_fingerprint(file, writer, manifest, self.base, self.threads)
        writer.finish(to_json(manifest))

    def _nbytes(self, sources: Sequence[Source], name: str) -> int:
        return next(source.infos(name)[0].nbytes for source in sources if source.brings(name))

    def _entries(self, sources: Sequence[Source], names: Sequence[str]) -> Iterator[Entry]:
        jobs = (
            partial(merge_tensor, name, sources, self.method, self.settings, self.value_coding, self.sums, self.missed)
            for name in names
        )
        for merged in run_in_order(jobs, self.threads):
            self._count(merged)
            if not merged.entry.unchanged:
                yield merged.entry

    def _count(self, merged: Merged) -> None:
        self.stored[merged.entry.name] = merged.entry.info
        self.shared += merged.shared
        self.conflicts += merged.conflicts

    def _note(self) -> None:
        self.notes += self.sums.notes()
        if self.base is None:
            self.notes.append(f"whether sums are more than their dtype holds is {NOT_CHECKED}; `apply` tells")

    def _recipe(self) -> dict[str, str]:
        """Say how the merge was made, for people: what was not the default, and where the diffs met."""
        settings = self.settings
        said = {
            "select": "all" if settings.density is None else f"density {settings.density:g}",
            "values": self.value_coding.id,
            "merged": f"{len(self.diffs)} diffs by {self.method.name}",
            "weights": " ".join(f"{weight:g}" for weight in settings.weights),
            "shared": str(self.shared),
            "conflicts": str(self.conflicts),
        }
        if self.method.random and settings.density is not None:
            said |= {"seed": str(settings.seed), "rescale": settings.rescale}
        if settings.scale != 1:
            said["scale"] = f"{settings.scale:g}"
        if settings.normalize is not None:
            said["normalize"] = "yes" if settings.normalize else "no"
        if self.base is None:
            said |= {OVERFLOW: NOT_CHECKED, ERROR: "not known without the base"}
        return said | self.sums.recipe()

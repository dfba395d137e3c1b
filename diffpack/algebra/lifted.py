"""Diffs that make the same tensors of others: worked on as diffs of a base that has these tensors, and given back.

Fine-tunes of a model whose library fuses its matrices all say the same of what is made of which slices. Written each by
its own names they would lose that: every fused tensor would be new. Instead the base is taken to have these tensors,
too. Nothing of the chunks changes by that, only what the manifest says around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.algebra.lifted_base import LiftedBase, own_name
from diffpack.algebra.other_base import OtherBase
from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff
from diffpack.diff.publish import write_for
from diffpack.diff.stored_chunks import write_again
from diffpack.diff.summary import base_summary
from diffpack.format.features import COPIES, SLICES
from diffpack.format.manifest import CheckpointSummary, Manifest
from diffpack.support.inputs import Inputs
from diffpack.tensors.digests import combine
from diffpack.tensors.rename import own_names


@dataclass(frozen=True)
class Lifted:
    """The same diffs as those of `base`, which has what they make of others.

    `manifest` is that of the first before; `further` are the names that only the lifted base has.
    """

    diffs: list[Diff]
    base: Checkpoint
    manifest: Manifest
    further: frozenset[str]

    def write_lowered(self, file: BinaryIO, diff: Diff, onto: OtherBase | None = None) -> None:
        """Write a diff of the lifted base as one of the base that the diffs were made on, or of another one, `onto`."""
        copies, slices = self.manifest.copies or {}, self.manifest.slices or {}
        gone = {*diff.manifest.removed, *diff.manifest.aliases}
        base, further = self.manifest.base, self.further
        if onto is not None:
            gone |= onto.lacking.keys()
            base = base_summary(combine(onto.checkpoint.tensors, onto.digests), onto.checkpoint.tensors)
            further = frozenset({*copies, *slices} - onto.view.keys())
        kept_copies = {name: source for name, source in copies.items() if name not in gone}
        kept_slices = {name: assembly for name, assembly in slices.items() if name not in gone}
        features = {name for name, used in ((COPIES, kept_copies), (SLICES, kept_slices)) if used}
        manifest = replace(
            diff.manifest,
            base=base,
            removed=tuple(name for name in diff.manifest.removed if name not in further),
            copies=kept_copies or None,
            slices=kept_slices or None,
            requires=tuple(sorted({*diff.manifest.requires, *features})),
        )
        write_again(file, diff, manifest)


def lifted(diffs: Sequence[Diff], base: Checkpoint | None, threads: int | None) -> Lifted | None:
    """Lift diffs that make the same tensors of others, if they make any, by the same names; else None.

    None, too, if one of them is all of another tensor in place of the base's of its name.

    `base` is theirs, which was checked. Raises `WrongBaseError` if it lacks what they need.
    """
    first = diffs[0].manifest
    made = {**(first.copies or {}), **(first.slices or {})}
    same = all(_made_of(diff) == _made_of(diffs[0]) for diff in diffs)
    if base is None or not made or not same:
        return None
    view = diffs[0].view(base)
    names = own_names(base.tensors, first.rename)
    if (first.copies or {}).keys() & names.keys():  # what the base has of these names says more of what they became
        return None
    owns = {name: own_name(name, first.rename, names, base.tensors) for name in made}
    of_base = {own: name for name, own in owns.items() if own is not None}
    if len(of_base) < len(made):
        return None
    infos = {own: view.info(name) for own, name in of_base.items()}
    above = LiftedBase(base, infos, lambda own: view.word_source(of_base[own]))
    summary = base_summary(fingerprint(above, threads=threads), above.tensors, first.base.name, first.base.revision)
    return Lifted([_raised(diff, summary) for diff in diffs], above, first, frozenset(made.keys() - names.keys()))


def _made_of(diff: Diff) -> tuple[object, ...]:
    manifest = diff.manifest
    return manifest.rename, manifest.copies, manifest.slices


def _raised(diff: Diff, base: CheckpointSummary) -> Diff:
    """A diff as one of the lifted base."""
    manifest = replace(
        diff.manifest,
        base=base,
        copies=None,
        slices=None,
        requires=tuple(name for name in diff.manifest.requires if name not in (COPIES, SLICES)),
    )
    return write_for(diff, Inputs([]), partial(write_again, diff=diff, manifest=manifest))

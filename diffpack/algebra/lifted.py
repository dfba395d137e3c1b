"""Diffs that make the same tensors of others: worked on as diffs of a base that has these tensors, and given back.

Fine-tunes of a model whose library fuses its matrices all say the same of what is made of which slices. Written each by
its own names they would lose that: every fused tensor would be new. Instead the base is taken to have these tensors,
too. Nothing of the chunks changes by that, only what the manifest says around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.against import BaseView
from diffpack.diff.diff import Diff
from diffpack.diff.publish import write_diff
from diffpack.diff.stored_chunks import write_again
from diffpack.diff.summary import base_summary
from diffpack.format.features import COPIES, SLICES
from diffpack.format.manifest import CheckpointSummary, Manifest
from diffpack.support.inputs import Inputs
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import Rename, own_names
from diffpack.tensors.undo_rename import base_names
from diffpack.tensors.word_source import WordSource


class _LiftedBase(Checkpoint):
    """A base that has further tensors, by its own names, some in place of its own: those a view makes of it."""

    def __init__(self, view: BaseView, made: Mapping[str, str]) -> None:
        base = view.base
        super().__init__(base.source, base.path)
        self.layout, self.folder, self.notes, self.left_out = base.layout, base.folder, base.notes, base.left_out
        self.ties = {name: first for name, first in base.ties.items() if not {name, first} & made.keys()}
        self._view = view
        self._made = made
        self._tensors = {**base.tensors, **{own: view.info(name) for own, name in made.items()}}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words; those of a further one made anew."""
        return self._view.words(self._made[name]) if name in self._made else self._view.base.words(name)

    def word_source(self, name: str) -> WordSource:
        """The same, to be read part by part."""
        return self._view.word_source(self._made[name]) if name in self._made else self._view.base.word_source(name)

    @property
    def files(self) -> list[Path]:
        """The files of the base."""
        return self._view.base.files


@dataclass(frozen=True)
class Lifted:
    """The same diffs as those of `base`, which has what they make of others.

    `manifest` is that of the first before; `further` are the names that only the lifted base has.
    """

    diffs: list[Diff]
    base: Checkpoint
    manifest: Manifest
    further: frozenset[str]

    def write_lowered(self, file: BinaryIO, diff: Diff) -> None:
        """Write a diff of the lifted base as one of the base that the diffs were made on."""
        copies, slices = self.manifest.copies or {}, self.manifest.slices or {}
        gone = {*diff.manifest.removed, *diff.manifest.aliases}
        kept_copies = {name: source for name, source in copies.items() if name not in gone}
        kept_slices = {name: assembly for name, assembly in slices.items() if name not in gone}
        features = {name for name, used in ((COPIES, kept_copies), (SLICES, kept_slices)) if used}
        manifest = replace(
            diff.manifest,
            base=self.manifest.base,
            removed=tuple(name for name in diff.manifest.removed if name not in self.further),
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
    owns = {name: _own(name, view, first.rename, names) for name in made}
    of_base = {own: name for name, own in owns.items() if own is not None}
    if len(of_base) < len(made):
        return None
    above = _LiftedBase(view, of_base)
    summary = base_summary(fingerprint(above, threads=threads), above.tensors, first.base.name, first.base.revision)
    return Lifted([_raised(diff, summary) for diff in diffs], above, first, frozenset(made.keys() - names.keys()))


def _made_of(diff: Diff) -> tuple[object, ...]:
    manifest = diff.manifest
    return manifest.rename, manifest.copies, manifest.slices


def _own(name: str, view: BaseView, rename: Rename, names: Mapping[str, str]) -> str | None:
    """A name in the base that rename rules call `name`: that of the tensor it takes the place of, or a free one."""
    taken = names.get(name)
    if taken is not None:
        return taken
    return next((own for own in base_names(name, rename) if own not in view.base.tensors), None)


def _raised(diff: Diff, base: CheckpointSummary) -> Diff:
    """A diff as one of the lifted base."""
    manifest = replace(
        diff.manifest,
        base=base,
        copies=None,
        slices=None,
        requires=tuple(name for name in diff.manifest.requires if name not in (COPIES, SLICES)),
    )
    raised = write_diff(None, Inputs([]), False, partial(write_again, diff=diff, manifest=manifest))
    raised.name, raised.path = diff.name, diff.path  # what errors are about, and what must not be written over
    return raised

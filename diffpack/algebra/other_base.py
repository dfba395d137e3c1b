"""Another base, as a diff that is carried over to it sees it: its tensors under the diff's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from diffpack.algebra.lifted_base import LiftedBase, own_name
from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.diff.against import assembled_words
from diffpack.diff.diff import Diff
from diffpack.diff.record import TensorDiff
from diffpack.errors import CorruptFileError, UsageError
from diffpack.format.manifest import Manifest
from diffpack.result.overflow import not_finite
from diffpack.support.names import printable
from diffpack.tensors.digests import DIGEST_BYTES
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.prefix_search import find_rename
from diffpack.tensors.reference import Reference, convert
from diffpack.tensors.rename import Rename, compose_rename, own_names
from diffpack.tensors.slices import Assembly, Turned
from diffpack.tensors.undo_rename import base_names
from diffpack.tensors.word_source import WordSource


@dataclass(frozen=True)
class OtherBase:
    """The rules that lead from its names to the diff's, its tensors under these, and all digests by its own names.

    `lacking` says of tensors that the diff makes of others why this base has not what they are made of; `kept` are
    others that a diff removes for their sake, which stay.
    """

    checkpoint: Checkpoint
    rename: Rename
    view: Mapping[str, str]
    digests: Mapping[str, bytes]
    lacking: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @classmethod
    def find(cls, diff: Diff, base: Checkpoint | None, onto: Checkpoint, threads: int | None) -> Self:
        """Look at a checkpoint as the other base of a diff, whose own base may be at hand.

        It must be if the diff makes tensors of others.
        """
        rename = _rename(diff, base, onto)
        return cls(onto, rename, own_names(onto.tensors, rename), digests_of(onto, onto.tensors, threads))

    def lifted(self, manifest: Manifest, base: Checkpoint, threads: int | None) -> Self:
        """The same with the tensors that a diff makes of others, as its own base would have them.

        Each is made if what it is made of is here, of the shapes it has in that base.
        """
        before = {name: base.info(own) for name, own in own_names(base.tensors, manifest.rename).items()}
        recipes: dict[str, str | Assembly] = {**(manifest.copies or {}), **(manifest.slices or {})}
        turned = Turned()
        lacking: dict[str, str] = {}
        made: dict[str, str | Assembly] = {}
        infos: dict[str, TensorInfo] = {}
        for name, recipe in recipes.items():
            info, reason = self._made(recipe, before)
            own = own_name(name, self.rename, self.view, {*self.checkpoint.tensors, *made})
            if info is None or own is None:
                lacking[name] = reason or "has no free name"
            else:
                made[own], infos[own] = recipe, info

        def source(own: str) -> WordSource:
            recipe = made[own]
            if isinstance(recipe, str):
                return self.checkpoint.word_source(self.view[recipe])
            return assembled_words(recipe, self.checkpoint, self.view, turned)

        above = LiftedBase(self.checkpoint, infos, source)
        return replace(
            self,
            checkpoint=above,
            view=own_names(above.tensors, self.rename),
            digests={**self.digests, **digests_of(above, infos, threads)},
            lacking=lacking,
            kept=frozenset(source for name in lacking for source in _sources(recipes[name])),
        )

    def _made(self, recipe: str | Assembly, before: Mapping[str, TensorInfo]) -> tuple[TensorInfo | None, str]:
        """What a copy or slices come to here, or None and why nothing."""
        sources = _sources(recipe)
        for source in sources:
            info = self.info(source)
            if info is None or info.shape != before[source].shape:
                what = "missing" if info is None else f"{info}, not {before[source]}"
                return None, f"is made of {printable(source)}, which is {what}"
        infos = {source: self.checkpoint.info(self.view[source]) for source in sources}
        if isinstance(recipe, str):
            return infos[recipe], ""
        return recipe.info(infos), "is made of tensors that are of several dtypes"

    def info(self, name: str) -> TensorInfo | None:
        """Dtype and shape of a tensor, None if there is none."""
        return self.checkpoint.info(self.view[name]) if name in self.view else None

    def digest(self, name: str) -> bytes:
        """A tensor's digest, as a diff keeps it."""
        return self.digests[self.view[name]][:DIGEST_BYTES]

    def reference(self, record: TensorDiff) -> Reference:
        """What a record's changes are relative to here."""
        words = None if record.base is None else self.checkpoint.word_source(self.view[record.name])
        return Reference(record.info, record.base, words)

    def overflows(self, record: TensorDiff) -> bool:
        """Whether the tensor has finite entries that are infinite in the dtype the record gives it."""
        assert record.base is not None
        source, target = record.base.dtype, record.info.dtype
        if source == target:
            return False
        words = self.checkpoint.word_source(self.view[record.name])
        parts = (words[start:stop] for start, stop in blocks(words.size))
        return any(
            (not_finite(convert(part, source, target), target) & ~not_finite(part, source)).any() for part in parts
        )


def _called_in_base(wanted: Mapping[str, TensorInfo], rules: Rename, diff: Diff) -> dict[str, TensorInfo]:
    """What the base called tensors. Raises `CorruptFileError` for one that the rules call otherwise."""
    of_base = {}
    for name, info in wanted.items():
        own = base_names(name, rules)
        if not own:
            raise CorruptFileError(f"{diff.name}: changes {printable(name)}, which its renames leave none", "A4")
        of_base[own[0]] = info
    return of_base


def _sources(recipe: str | Assembly) -> list[str]:
    """What a copy or an assembly is made of."""
    return [recipe] if isinstance(recipe, str) else recipe.sources


def _rename(diff: Diff, base: Checkpoint | None, onto: Checkpoint) -> Rename:
    """The rules from the other base's names to the diff's: its own, unless others find more of its tensors."""
    own, manifest = diff.manifest.rename, diff.manifest
    made: dict[str, str | Assembly] = {**(manifest.copies or {}), **(manifest.slices or {})}
    wanted = {name: record.base for name, record in diff.items() if record.base is not None and name not in made}
    if made and base is not None:
        view = own_names(base.tensors, own)
        wanted |= {source: base.info(view[source]) for recipe in made.values() for source in _sources(recipe)}

    def found(rules: Rename) -> int:
        try:
            view = own_names(onto.tensors, rules)
        except UsageError:
            return -1
        return sum(name in view and onto.info(view[name]) == info for name, info in wanted.items())

    if found(own) == len(wanted):
        return own
    of_base = base.tensors if base is not None else _called_in_base(wanted, own, diff)
    others = [find_rename(onto.tensors, wanted), compose_rename(find_rename(onto.tensors, of_base), own)]
    return max([own, *others], key=found)  # of equals the first

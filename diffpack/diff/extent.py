"""How much of a diff's base a model in memory is: all of it and perhaps more, or a part that holds what is changed.

A file is its base, or is not. A model in memory lacks buffers its class does not store, has a head its file does not,
and one tensor under two names. Where its tensors without such extras have the base's fingerprint, it is the whole base.
Else it is a part of it: each tensor that changes is checked by its own digest, and the others are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, product
from math import comb

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.diff.against import BaseView
from diffpack.diff.diff import Diff
from diffpack.diff.summary import base_summary
from diffpack.errors import WrongBaseError
from diffpack.support.names import listed, printable
from diffpack.tensors.digests import DIGEST_BYTES, combine
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.undo_rename import base_names

_MOST_CHOICES = 1000
"""Ways to leave doubtful tensors out that are tried: a millisecond each, for some hundred tensors."""


@dataclass(frozen=True)
class Extent:
    """What of a base in memory is the diff's base; names are the base's own.

    `names` leads from the tensors that are (all, if `whole`) to what the diff's base calls them. `extra` ones are left
    out of the result. `tied` leads from extra names to the name of the tensor they share their memory with.
    """

    whole: bool
    names: Mapping[str, str]
    extra: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self, tensors: Mapping[str, TensorInfo], digests: Mapping[str, bytes]) -> str:
        """The fingerprint of the tensors under their recorded names; `digests` are by the base's own names."""
        infos = {name: tensors[own] for own, name in self.names.items()}
        return combine(infos, {name: digests[own] for own, name in self.names.items()})


def find_extent(diff: Diff, view: BaseView, *, verify: bool, threads: int | None = None) -> Extent:
    """Find what of a base is the diff's base. Of one that is not live that must be all.

    With `verify` a live one is hashed unless it plainly is the whole base, whose fingerprint is then for the caller to
    compare. Raises `WrongBaseError` for one that is a part, if the diff makes tensors of it that nothing but the whole
    base's fingerprint tells to be right.
    """
    base, names = view.base, _recorded_names(diff, view)
    if not base.live:
        return _of_files(diff, base, names, threads)
    search = _Search(diff, view, names)
    if search.plain and not view.lacking:
        return Extent(True, names[0])
    found = search.whole(threads) if verify and not view.lacking else None
    if found is not None:
        return found
    if verify:
        _require_digests(diff, view)
    return search.part(threads)


def other_names(diff: Diff, base: Checkpoint) -> str:
    """Say so if a checkpoint whose fingerprint is not that of a diff's base has its tensors under other names; or "".

    For operations that need the base under its own names.
    """
    try:
        naming = diff.view(base).naming
    except WrongBaseError:
        return ""
    if naming.recorded:
        return ""
    for name, own in naming.view.items():
        known = [found for found in base_names(name, diff.manifest.rename) if found != own]
        if name in diff and known:
            return (
                f"; its tensors have other names than the base's: {printable(own)} is there {printable(known[0])} "
                "(`load`, `apply` and `verify` take it so)"
            )
    return ""


def _of_files(diff: Diff, base: Checkpoint, names: list[dict[str, str]], threads: int | None) -> Extent:
    """The extent of a base that must be all there; where its names may mean two things, hashed to tell which."""
    strange = frozenset(base.tensors.keys() - names[0].keys())
    extents = [Extent(True, way, strange) for way in names]
    if len(extents) == 1:
        return extents[0]
    digests = digests_of(base, names[0], threads)
    expected = diff.manifest.base.fingerprint
    return next((each for each in extents if each.fingerprint(base.tensors, digests) == expected), extents[0])


def _recorded_names(diff: Diff, view: BaseView) -> list[dict[str, str]]:
    """What the diff's base may have called a base's tensors: one way, or two where its rename rules leave it open."""
    if view.naming.recorded:
        return [{own: own for own in view.base.tensors}]
    ways: list[dict[str, str]] = [{}, {}]
    for name, own in view.naming.view.items():
        known = base_names(name, diff.manifest.rename)
        if known:
            ways[0][own], ways[1][own] = known[0], known[-1]
    return ways if ways[0] != ways[1] else ways[:1]


class _Search:
    """The search for the tensors of a live model that are the diff's base."""

    def __init__(self, diff: Diff, view: BaseView, names: list[dict[str, str]]) -> None:
        self._diff, self._view, self._base, self._names = diff, view, view.base, names
        manifest = diff.manifest
        copies = manifest.copies or {}
        self._touched = {view.own[name]: name for name in diff if diff[name].base is not None and name in view.own}
        mentioned = {*diff, *manifest.aliases, *manifest.aliases.values(), *manifest.removed, *copies.values()}
        self._mentioned = {view.own[name] for name in mentioned if name in view.own} | view.sources()
        self._new = {
            view.naming.view[name]
            for name in [*(name for name in diff if diff[name].base is None), *manifest.aliases]
            if name in view.naming.view
        }
        self._ties = _ties(self._base, self._mentioned)
        self._strange = frozenset(own for own in self._base.tensors if own not in names[0])

    @property
    def plain(self) -> bool:
        """Whether nothing speaks against its being just the base."""
        alike = self._as_large(self._base.tensors)
        return alike and len(self._names) == 1 and not (self._ties or self._new or self._strange)

    def _as_large(self, names: Iterable[str]) -> bool:
        """Whether tensors are as many, with as many entries and bytes, as those of the diff's base."""
        of_base = self._diff.manifest.base
        found = base_summary(of_base.fingerprint, {own: self._base.tensors[own] for own in names})
        return (found.tensors, found.entries, found.bytes) == (of_base.tensors, of_base.entries, of_base.bytes)

    def whole(self, threads: int | None) -> Extent | None:
        """The extent that has the base's fingerprint, or should have: as large as the base. None if there is none."""
        digests = digests_of(self._base, self._base.tensors, threads)
        found = None
        for names, extra in product(self._names, self._variants(digests)):
            kept = {own: name for own, name in names.items() if own not in extra}
            extent = Extent(True, kept, self._strange | extra, self._followers(self._strange | extra))
            if extent.fingerprint(self._base.tensors, digests) == self._diff.manifest.base.fingerprint:
                return extent
            if found is None and self._as_large(kept):
                found = extent
        return found if len(self._names) == 1 else None

    def part(self, threads: int | None) -> Extent:
        """The extent of a part of the base: without what may be tied to tensors that change."""
        before = {name: self._diff[name].base for name in self._touched.values()}
        recorded = {(info, self._diff.digests(name)[0]) for name, info in before.items()}
        kinds = {info for info, _ in recorded}
        others = [own for own, info in self._base.tensors.items() if info in kinds and own not in self._mentioned]
        others = [own for own in others if not self._is_constant(own)]
        digests = digests_of(self._base, others, threads)
        alike = {own for own in others if (self._base.tensors[own], digests[own][:DIGEST_BYTES]) in recorded}
        tied = {own for own, first in self._ties.items() if first in self._touched}
        extra = self._strange | alike | tied
        names = {own: name for own, name in self._names[0].items() if own not in extra}
        return Extent(False, names, extra, self._followers(extra))

    def _is_constant(self, own: str) -> bool:
        """Whether all words of a tensor are one (zeros, ones): then others are equal to it by chance."""
        words = self._base.words(own)
        return bool((words == words[:1]).all())

    def _variants(self, digests: Mapping[str, bytes]) -> Iterator[frozenset[str]]:
        """Sets of tensors the base may lack, the smallest first."""
        first: dict[tuple[TensorInfo, bytes], str] = {}
        for own in sorted(self._base.tensors, key=lambda own: own not in self._mentioned):
            first.setdefault((self._base.tensors[own], digests[own]), own)
        equal = frozenset(
            own
            for own, info in self._base.tensors.items()
            if own not in self._mentioned and first[info, digests[own]] != own
        )
        nothing: frozenset[str] = frozenset()
        ties, new = frozenset(self._ties), frozenset(self._new)
        for more, others in product([nothing, ties, equal], [nothing, new]):
            yield more | others
        many = len(self._names[0]) - self._diff.manifest.base.tensors
        doubtful = sorted(equal | ties | new)
        if 0 < many <= len(doubtful) and comb(len(doubtful), many) <= _MOST_CHOICES:
            yield from map(frozenset, combinations(doubtful, many))

    def _followers(self, extra: frozenset[str]) -> dict[str, str]:
        return {own: first for own, first in self._ties.items() if own in extra}


def _ties(base: Checkpoint, mentioned: set[str]) -> dict[str, str]:
    """Names the diff does not speak of, of tensors that lie in memory under another name, too: with that name.

    It is one that the diff speaks of, if any is.
    """
    groups: dict[str, list[str]] = {}
    for own, first in base.ties.items():
        groups.setdefault(first, [first]).append(own)
    found: dict[str, str] = {}
    for group in groups.values():
        main = next((own for own in group if own in mentioned), group[0])
        found |= {own: main for own in group if own != main and own not in mentioned}
    return found


def _require_digests(diff: Diff, view: BaseView) -> None:
    """Raise `WrongBaseError` unless a part of a base can be checked by digests of its tensors alone."""
    manifest = diff.manifest
    unchecked = [name for name in [*(manifest.copies or {}), *(manifest.slices or {})] if name not in diff]
    unchecked += [name for name, target in manifest.aliases.items() if target not in diff]
    unchecked = [name for name in unchecked if name not in view.lacking]
    touches = any(record.base is not None for record in diff.values())
    if touches and not unchecked:
        return
    what = (
        f"{listed([printable(name) for name in unchecked])} would be made of tensors without a digest of their own"
        if unchecked
        else "it changes no tensor by which the base could be told"
    )
    raise WrongBaseError(
        f"{view.base.source}: cannot be told to be the base of {diff.name}: it has {len(view.base.tensors)} tensors, "
        f"the base {manifest.base.tensors}, and {what}; give the base's files, or verify=False to go on unchecked",
        tuple(unchecked),
    )

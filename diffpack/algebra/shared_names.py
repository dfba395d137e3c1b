"""Several diffs of one base under one set of names, whatever prefixes each of them renames.

A tensor the base has is known by the base's own name, which a diff's rename rules lead from; a new one by its name in
the result, with the rules undone where that can mean one thing only. The names shared are those of the first diff.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.errors import BaseNeededError, UsageError
from diffpack.support.names import printable
from diffpack.tensors.rename import Rename, own_names, renamed
from diffpack.tensors.undo_rename import base_names

Key = tuple[bool, str]
"""What a tensor is known by: whether the base has it, and the base's own name, or that of a new tensor."""


@dataclass(frozen=True)
class SharedNames:
    """What one diff calls the tensors it speaks of: `own` leads from the shared names to the diff's."""

    own: Mapping[str, str]

    def shared(self) -> dict[str, str]:
        """The other way: from the diff's names to the shared ones."""
        return {own: name for name, own in self.own.items()}


def _meant(rules: Sequence[Rename], names: Sequence[Iterable[str]]) -> Counter[str]:
    """Count, for each name, the different rules that may lead from it to one of the `names` of their diff."""
    found: dict[Rename, set[str]] = {}
    for rename, wanted in zip(rules, names, strict=True):
        found.setdefault(rename, set()).update(own for name in wanted for own in base_names(name, rename) or [name])
    return Counter(own for each in found.values() for own in each)


def share_names(diffs: Sequence[Diff], base: Checkpoint | None, *, guess: bool = False) -> list[SharedNames]:
    """Find the names under which diffs of one base can be looked at together, those of the first.

    Without the base a name may lead to two names of the base; another diff mostly tells which. Where none does, the
    first is taken if that is a mere `guess` for people, else raises `BaseNeededError`. Raises `UsageError` if two
    tensors of different diffs would get one name.
    """
    if all(diff.manifest.rename == diffs[0].manifest.rename for diff in diffs):
        named = [SharedNames({name: name for name in _mentioned(diff)}) for diff in diffs]
    else:
        keys = _Keys(diffs, base, guess).keys
        names = _names_of_first(diffs[0], keys, base)
        named = [SharedNames({names[key]: own for own, key in found.items()}) for found in keys]
    return [_turned(diff, item, diffs[0], named[0]) for diff, item in zip(diffs, named, strict=True)]


def names_in_base(diffs: Sequence[Diff], base: Checkpoint | None) -> list[dict[str, str]]:
    """For each of several diffs of one base: the names its records have, and the base's own, where they are sure."""
    found = _Keys(diffs, base, guess=True)
    return [
        {name: keys[name][1] for name, record in diff.items() if record.base is not None and name not in guessed}
        for diff, keys, guessed in zip(diffs, found.keys, found.guessed, strict=True)
    ]


def _mentioned(diff: Diff) -> list[str]:
    manifest = diff.manifest
    return sorted({*diff, *manifest.removed, *manifest.aliases, *manifest.aliases.values()})


def _of_base(diff: Diff) -> set[str]:
    """The names of tensors the diff takes from the base, whatever becomes of them."""
    manifest = diff.manifest
    kept = {name for name, record in diff.items() if record.base is not None}
    return kept | set(manifest.removed) | {target for target in manifest.aliases.values() if target not in diff}


class _Keys:
    """Finds what each diff's tensors are known by: `keys` has, for each diff, its names and their keys.

    `guessed` has the names whose key may be another, since nothing tells which.
    """

    def __init__(self, diffs: Sequence[Diff], base: Checkpoint | None, guess: bool) -> None:
        self._diffs = diffs
        self._guess = guess
        self._rules = [diff.manifest.rename for diff in diffs]
        self._candidates = [
            {name: base_names(name, diff.manifest.rename) for name in _mentioned(diff)} for diff in diffs
        ]
        self._of_base = [_of_base(diff) for diff in diffs]
        self.guessed: list[set[str]] = [set() for _ in diffs]
        if base is None:
            self.keys: list[dict[str, Key]] = [self._certain(at) for at in range(len(diffs))]
            self._settle_base()
        else:
            views = [own_names(base.tensors, rules) for rules in self._rules]
            self.keys = [
                {name: (True, view[name]) for name in _mentioned(diff) if name in view}
                for diff, view in zip(diffs, views, strict=True)
            ]
        self._settle_new()

    def _certain(self, at: int) -> dict[str, Key]:
        """The base tensors of a diff whose name can mean one of the base's only."""
        candidates = self._candidates[at]
        return {name: (True, candidates[name][0]) for name in self._of_base[at] if len(candidates[name]) == 1}

    def _settle_base(self) -> None:
        """Choose among the names of base tensors: one that another diff is certain of, or that several may mean."""
        certain = {own for keys in self.keys for _, own in keys.values()}
        meant = _meant(self._rules, self._of_base)
        for at, names in enumerate(self._of_base):
            for name in sorted(names - self.keys[at].keys()):
                found = self._candidates[at][name] or [name]
                known = [own for own in found if own in certain] or [own for own in found if meant[own] > 1]
                if len(known) != 1:
                    self.guessed[at].add(name)
                if len(known) != 1 and not self._guess and self._rules[at] != self._rules[0]:
                    raise BaseNeededError(
                        f"{self._diffs[at].name}: {printable(name)} may be {printable(found[0])} or "
                        f"{printable(found[-1])} of the base, which the diffs rename differently: give the base"
                    )
                told = [own for own in found if own in self._told_by_others(at)]
                self.keys[at][name] = True, (known or told or found)[0]

    def _told_by_others(self, at: int) -> set[str]:
        """Names that diffs with other rules may mean by any of theirs, new ones included."""
        others = [other for other, rules in enumerate(self._rules) if rules != self._rules[at]]
        return {own for other in others for found in self._candidates[other].values() for own in found}

    def _settle_new(self) -> None:
        """Find what tensors that are not taken from the base are known by: some take the place of one it has."""
        known = {own for keys in self.keys for _, own in keys.values()}
        rest = [sorted(set(self._candidates[at]) - self.keys[at].keys()) for at in range(len(self._diffs))]
        meant = _meant(self._rules, rest)
        for at, names in enumerate(rest):
            for name in names:
                found = self._candidates[at][name]
                replaced = [own for own in found if own in known]
                shared = [own for own in found if meant[own] > 1]
                if replaced:
                    self.keys[at][name] = True, replaced[0]
                elif len(found) == 1 or len(shared) == 1:
                    self.keys[at][name] = False, (shared or found)[0]
                else:
                    self.keys[at][name] = False, name


def _names_of_first(first: Diff, keys: Sequence[Mapping[str, Key]], base: Checkpoint | None) -> dict[Key, str]:
    """What the first diff calls each tensor, or would. Raises `UsageError` if two would get one name."""
    rules = first.manifest.rename
    names = {key: name for name, key in keys[0].items()}
    taken = set(names.values())
    of_base = set() if base is None else own_names(base.tensors, rules).keys()
    for found in keys[1:]:
        for own, key in sorted(found.items()):
            if key in names:
                continue
            name = _called(key, own, rules)
            if name in taken or (name in of_base and not key[0]):
                raise UsageError(
                    f"{printable(own)}: {printable(name)} is another tensor in {first.name}, whose names are kept: the "
                    "two cannot be brought together"
                )
            names[key] = name
            taken.add(name)
    return names


def _called(key: Key, own: str, rules: Rename) -> str:
    """The name rules give a tensor of the base; a new one only if they are about names like its own."""
    of_base, known = key
    about = any(old and known.startswith(old) for old, _ in rules)
    return renamed(known, rules) if of_base or about or known != own else known


def _turned(diff: Diff, named: SharedNames, first: Diff, named_first: SharedNames) -> SharedNames:
    """Let tensors that are tied in a diff and in the first one be stored under one name.

    Which of them is stored goes by their names. Where the base has one tensor for both, or none, it is all the same.
    """
    shared, ours = named.shared(), dict(named.own)
    classes = {frozenset(members): target for target, members in _tied(diff, shared).items()}
    for target, members in _tied(first, named_first.shared()).items():
        stored = classes.get(frozenset(members))
        if stored in (None, target):
            continue
        assert stored is not None
        record, other = diff[named.own[stored]], first[named_first.own[target]]
        same = (record.info, record.base) == (other.info, other.base)
        if same and diff.digests(record.name)[0] == first.digests(other.name)[0]:
            ours[target], ours[stored] = ours[stored], ours[target]
    return SharedNames(ours)


def _tied(diff: Diff, shared: Mapping[str, str]) -> dict[str, set[str]]:
    """The stored tensors that others are tied to -> all of these names, as they are shared."""
    tied: dict[str, set[str]] = {}
    for name, target in diff.manifest.aliases.items():
        if target in diff:
            tied.setdefault(shared[target], {shared[target]}).add(shared[name])
    return tied

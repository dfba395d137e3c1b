"""Find what the tuned checkpoint calls the base's tensors: by names, then by contents, then by what these teach.

Names that fit are left alone, and so is what is found by one prefix. Of the other tensors, those that are equal, or
clearly nearer to each other than to anything else, are the same tensor. Contents that many have (biases of zeros, norms
of ones, tied weights) and those that changed beyond recognition follow the names of their neighbours. Nothing is paired
at random: what is left stays new, and may still be compared with its like (`references`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from diffpack.checkpoints import Checkpoint
from diffpack.extraction.scan.alike import NEAR, Kind, kinds, numberless, told_apart
from diffpack.extraction.scan.name_votes import NameVotes, components, most_alike
from diffpack.extraction.scan.scan import Digests
from diffpack.tensors.name_rules import rules_for
from diffpack.tensors.prefix_search import find_rename
from diffpack.tensors.reference import comparable
from diffpack.tensors.rename import Rename, own_names
from diffpack.tensors.rename_patterns import Renaming, rename_rules


@dataclass(frozen=True)
class Renames:
    """The rules, and the digests that had to be computed to find them."""

    rename: Rename
    digests: Digests = field(default_factory=Digests)


def renames_of(
    base: Checkpoint,
    tuned: Checkpoint,
    renaming: Renaming | None,
    threads: int | None,
    of_base: Mapping[str, bytes] | None = None,
) -> Renames:
    """The rules that the user gives, or those that are found. Raises `UsageError` for a renaming that is none.

    `of_base` are digests of the base's tensors that are known before; those given with the rules have them, too.
    """
    known = Digests(dict(of_base or {}))
    if renaming is None:
        return find_renames(base, tuned, threads, known)
    return Renames(rename_rules(renaming, base.tensors, base.source), known)


def find_renames(
    base: Checkpoint, tuned: Checkpoint, threads: int | None = None, known: Digests | None = None
) -> Renames:
    """Find the rules that lead from the base's names to the tuned checkpoint's. No tensor is read if all names fit.

    `known` are digests that need not be computed.
    """
    known = known or Digests()
    rules = find_rename(base.tensors, tuned.tensors)
    view = own_names(base.tensors, rules)
    by_name = {
        view[name]: name
        for name, info in tuned.tensors.items()
        if name in view and comparable(base.info(view[name]), info)
    }
    lost = base.tensors.keys() - by_name.keys()
    new = tuned.tensors.keys() - by_name.values()
    if not lost and not new:
        return Renames(rules, known)
    stacks, new_stacks = set(map(numberless, lost)), set(map(numberless, new))
    doubtful = {
        own: name
        for own, name in by_name.items()
        if base.info(own).shape == tuned.info(name).shape
        and (numberless(own) in stacks or numberless(name) in new_stacks)
    }
    found = kinds(base, tuned, lost | doubtful.keys(), new | set(doubtful.values()), threads)
    moved = _moved(found, doubtful)
    matching = _Matching(
        base, tuned, threads, {own: name for own, name in by_name.items() if own not in moved}, lost | moved.keys(),
        new | set(moved.values()), digests=known,
    )  # fmt: skip
    matching.match(found)
    for own, name in moved.items():  # better by name than not at all
        if own in matching.owns and name in matching.names:
            matching.pair(own, name)
    if matching.pairs == by_name:
        return Renames(rules, matching.digests)
    return Renames(rules_for(matching.pairs, matching.owns), matching.digests)


def matched_by_name(
    base: Checkpoint, tuned: Checkpoint, pairs: dict[str, str], owns: set[str], names: set[str], threads: int | None
) -> Rename:
    """The rules that would also pair tensors of like names, dtypes and shapes, near or not; for people to judge.

    `pairs` leads from base tensors to tuned ones, `owns` and `names` are in none.
    """
    matching = _Matching(base, tuned, threads, dict(pairs), set(owns), set(names), farthest=None)
    matching.match(kinds(base, tuned, owns, names, threads))
    return rules_for(matching.pairs, matching.owns)


def _moved(found: Iterable[Kind], by_name: Mapping[str, str]) -> dict[str, str]:
    """Of pairs of one name (base -> tuned), those that are something else than what they are called.

    Layers of a stack from which some were dropped, or into which some were put, are numbered anew. Tensors whose
    contents do not tell go with those that are nearest by name and do.
    """
    moved: dict[str, str] = {}
    unsure = []
    votes: dict[str, Counter[bool]] = {}
    for kind in found:
        for own in kind.owns:
            name = by_name.get(own)
            if name is None or name not in kind.name_at:
                continue
            verdict = kind.moved(name, own)
            if verdict is None:
                unsure.append((own, name))
                continue
            if verdict:
                moved[own] = name
            for prefix in _prefixes(name):
                votes.setdefault(prefix, Counter())[verdict] += 1
    if moved:
        for own, name in unsure:
            told = next((votes[prefix] for prefix in _prefixes(name) if prefix in votes), Counter())
            if told[True] > told[False]:
                moved[own] = name
    return moved


def _prefixes(name: str) -> list[str]:
    """All prefixes that end at a component, the longest first."""
    parts = components(name)
    return ["".join(parts[:cut]) for cut in range(len(parts) - 1, -1, -1)]


class _Matching:
    """Pairs (base -> tuned) as far as they are known, and the tensors of both sides that are in none.

    Tensors that are `farthest` apart at most (None: any) may be paired for names that are merely alike.
    """

    def __init__(
        self, base: Checkpoint, tuned: Checkpoint, threads: int | None, pairs: dict[str, str], owns: set[str],
        names: set[str], farthest: int | None = NEAR, digests: Digests | None = None,
    ) -> None:  # fmt: skip
        self.base, self.tuned, self.threads = base, tuned, threads
        self.pairs, self.owns, self.names = pairs, owns, names
        self.farthest = farthest
        self.digests = digests or Digests()
        self.votes = NameVotes(pairs)

    def pair(self, own: str, name: str) -> None:
        """Take a pair."""
        self.pairs[own] = name
        self.votes.add(own, name)
        self.owns.remove(own)
        self.names.remove(name)

    def match(self, found: list[Kind]) -> None:
        """Pair what can be paired: by contents, then by names, as long as one pair leads to another."""
        for kind in found:
            for name, own in self._by_content(kind):
                self.pair(own, name)
        for kind in found:
            for name, own in list(kind.nearest(*self._left(kind))):
                self.pair(own, name)
        while self._by_votes() or self._by_names(found):
            pass

    def _left(self, kind: Kind) -> tuple[list[str], list[str]]:
        return [name for name in kind.names if name in self.names], [own for own in kind.owns if own in self.owns]

    def _by_content(self, kind: Kind) -> list[tuple[str, str]]:
        """Tensors with equal contents that nothing else has. Only where sketches are equal can contents be."""
        pairs = []
        for names, owns in kind.equal(*self._left(kind)):
            if not kind.telling(names[0]):
                continue
            if len(names) == len(owns) == 1:
                pairs.append((names[0], owns[0]))
                continue
            for here, there in told_apart(self.base, self.tuned, names, owns, self.digests, self.threads):
                if len(here) == len(there) == 1:
                    pairs.append((here[0], there[0]))
        return pairs

    def _by_votes(self) -> bool:
        """Pair tensors that are called as their neighbours let expect; say whether there were any."""
        claims: dict[str, list[tuple[int, str]]] = {}
        for own in sorted(self.owns):
            name, told = self.votes.translated(own, self.tuned.tensors) or ("", 0)
            if name in self.names and comparable(self.base.info(own), self.tuned.info(name)):
                claims.setdefault(name, []).append((told, own))
        best = {name: max(owns) for name, owns in claims.items()}
        sure = [(own, name) for name, (told, own) in best.items() if [at for at, _ in claims[name]].count(told) == 1]
        for own, name in sure:
            self.pair(own, name)
        return bool(sure)

    def _by_names(self, found: list[Kind]) -> bool:
        """Pair near tensors that share most of their names; say whether there were any."""
        pairs = []
        for kind in found:
            names, owns = self._left(kind)
            if names and owns:
                pairs += most_alike(names, owns, self.votes, kind.within(names, owns, self.farthest))
        before = len(self.names)
        for name, own in pairs:
            if own in self.owns:  # a base tensor may be near tensors of two dtypes
                self.pair(own, name)
        return len(self.names) < before

"""How the names of two checkpoints lead to one another, learnt from tensors that are known to be the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping

import numpy as np
import numpy.typing as npt

_COMPONENT = re.compile(r"[^./]*[./]|[^./]+\Z")
_NUMBER = re.compile(r"\d+")
_MOST_PAIRS = 1 << 18
"""Names compared each with each: a quarter of a million pairs take about a second."""


def components(name: str) -> list[str]:
    """A name's components, each with the dot or slash behind it; one at least."""
    return _COMPONENT.findall(name) or [name]


class NameVotes:
    """What prefixes and last components of the base's names became in the tuned checkpoint.

    Each pair of names is a vote for all prefixes before equal tails, and for the last component's end.
    """

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._prefixes: _Votes = {}
        self._lasts: _Votes = {}
        self._ends: _Votes = {}
        for own, name in pairs.items():
            self.add(own, name)

    def add(self, own: str, name: str) -> None:
        """Take a base tensor's name and the tuned one's."""
        before, after = components(own), components(name)
        if len(before) == len(after):
            last, new = before[-1], after[-1]
            _vote(self._lasts, last, new)
            same = next(
                (at for at, (a, b) in enumerate(zip(last, new, strict=False)) if a != b), min(len(last), len(new))
            )
            _vote(self._ends, last[same:], new[same:])
            if last != new:
                before[-1] = new  # ends apart, the prefix before them is a vote as well
        while before and after and before[-1] == after[-1]:
            before.pop()
            after.pop()
            _vote(self._prefixes, "".join(before), "".join(after))

    def _last(self, last: str) -> str:
        """What a last component should be called."""
        if last in self._lasts:
            return _winner(self._lasts[last])
        for cut in range(len(last) + 1):
            if last[cut:] in self._ends:
                return last[:cut] + _winner(self._ends[last[cut:]])
        return last

    def translated(self, own: str, known: Container[str] | None = None) -> tuple[str, int] | None:
        """What a base tensor should be called, by the votes for its longest prefix that has any, and how long that is.

        With `known` the longest prefix that leads to one of these names. None where no vote tells. Lengths are counted
        in components.
        """
        parts = components(own)
        lasts = dict.fromkeys((self._last(parts[-1]), parts[-1]))
        for cut in range(len(parts) - 1, -1, -1):
            votes = self._prefixes.get("".join(parts[:cut]))
            if not votes:
                continue
            for last in lasts:
                new = "".join([_winner(votes), *parts[cut:-1], last])
                if known is None or new in known:
                    return new, cut
        return None


_Votes = dict[str, Counter[str]]


def _vote(votes: _Votes, old: str, new: str) -> None:
    votes.setdefault(old, Counter())[new] += 1


def _winner(votes: Counter[str]) -> str:
    """What most are for; of equals the first by name."""
    most = max(votes.values())
    return min(new for new, count in votes.items() if count == most)


def most_alike(
    names: list[str], owns: list[str], votes: NameVotes, near: npt.NDArray[np.bool_]
) -> list[tuple[str, str]]:
    """Pairs whose names share most components at both ends, each more than with any other; numbers must be the same.

    Names of the base are compared as `votes` translate them. Only what is `near` (names x owns) is paired, and what
    differs in the last component alone, being the one thing its neighbours have left.
    """
    if len(names) * len(owns) > _MOST_PAIRS:
        return []
    translated = [votes.translated(own) or (own, 0) for own in owns]
    of_names = [(components(name), _NUMBER.findall(name)) for name in names]
    of_owns = [(components(own), _NUMBER.findall(own)) for own, _ in translated]
    scores = [
        [
            (_shared(*ours, *theirs, near=bool(near[at, there])), told)
            for there, (theirs, (_, told)) in enumerate(zip(of_owns, translated, strict=True))
        ]
        for at, ours in enumerate(of_names)
    ]
    pairs = []
    for at, row in enumerate(scores):
        best = _single_best(row)
        if best is not None and _single_best([other[best] for other in scores]) == at:
            pairs.append((names[at], owns[best]))
    return pairs


def _shared(ours: list[str], numbers: list[str], theirs: list[str], their_numbers: list[str], *, near: bool) -> int:
    """How many components are shared at both ends; 0 for names that are not to be paired."""
    if numbers != their_numbers:
        return 0
    most = min(len(ours), len(theirs))
    lead = next((at for at in range(most) if ours[at] != theirs[at]), most)
    if not near and not lead == len(ours) - 1 == len(theirs) - 1:
        return 0
    most -= lead
    return 2 * (lead + next((at for at in range(most) if ours[-1 - at] != theirs[-1 - at]), most)) + near


def _single_best(scores: list[tuple[int, int]]) -> int | None:
    """Where the highest score is; None if there are two, or nothing is shared."""
    most = max(scores, default=(0, 0))
    return scores.index(most) if most[0] > 1 and scores.count(most) == 1 else None

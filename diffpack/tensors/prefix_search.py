"""Prefixes of names, and the one by which the names of two checkpoints differ, found from names and shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from diffpack.errors import UsageError
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import Rename, own_names

_MOST_CANDIDATES = 16  # of each kind, those that fit most names
_MOST_CUTS = 4
"""The whole name, and up to three leading components cut off: a wrapper around a model within a model."""


def cuts(name: str) -> Iterator[tuple[str, str]]:
    """The (prefix, tail) pairs of a name cut before it and after each of its dots, the longest tail first."""
    yield "", name
    at = name.find(".")
    while at >= 0:
        yield name[: at + 1], name[at + 1 :]
        at = name.find(".", at + 1)


def find_rename(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]) -> Rename:
    """Find the prefix rule that pairs most tensors by name and shape, if any beats no rule at all.

    Candidates are the prefixes, ending at a dot, that one side has before a name of the other side; and one prefix for
    another where that pairs most of all tensors, since the tails of a few names are alike by chance, too.
    """
    if not base or not tuned:
        return ()
    best: Rename = ()
    best_score = none = _score(base, tuned, ())
    if best_score == len(tuned):
        return ()
    one_sided, swapped = _candidates(base, tuned)
    for rule in one_sided:
        score = _score(base, tuned, (rule,))
        if score > best_score:
            best, best_score = (rule,), score
    if 2 * (len(tuned) - best_score) <= len(tuned):
        return best
    for rule in swapped:
        score = _score(base, tuned, (rule,))
        if score > best_score and 2 * (score - none) > len(tuned):
            best, best_score = (rule,), score
    return best


def _candidates(
    base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs of prefixes that turn most base names into tuned names: those with an empty one, and the others."""
    tails: dict[str, set[str]] = {}
    for name in tuned:
        for prefix, tail in islice(cuts(name), _MOST_CUTS):
            tails.setdefault(tail, set()).add(prefix)
    rules: Counter[tuple[str, str]] = Counter()
    for name in base:
        for prefix, tail in islice(cuts(name), _MOST_CUTS):
            rules.update((prefix, other) for other in tails.get(tail, ()) if prefix != other)
    order = sorted(rules, key=lambda rule: (-rules[rule], rule))
    kinds = ([rule for rule in order if all(rule) == swapped][:_MOST_CANDIDATES] for swapped in (False, True))
    one_sided, swapped = map(sorted, kinds)
    return one_sided, swapped


def _score(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo], rules: Rename) -> int:
    try:
        view = own_names(base, rules)
    except UsageError:
        return -1
    return sum(name in view and base[view[name]].shape == info.shape for name, info in tuned.items())

"""Find the one prefix by which the names of two checkpoints differ, from names and shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from diffpack.errors import UsageError
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import Rename, own_names


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
        for tail, prefix in _tails(name):
            tails.setdefault(tail, set()).add(prefix)
    rules: Counter[tuple[str, str]] = Counter()
    for name in base:
        for tail, prefix in _tails(name):
            rules.update((prefix, other) for other in tails.get(tail, ()) if prefix != other)
    order = sorted(rules, key=lambda rule: (-rules[rule], rule))
    kinds = ([rule for rule in order if all(rule) == swapped][:_MOST_CANDIDATES] for swapped in (False, True))
    one_sided, swapped = map(sorted, kinds)
    return one_sided, swapped


_MOST_CANDIDATES = 16


def _tails(name: str) -> list[tuple[str, str]]:
    """The (tail, prefix) pairs of the whole name and of up to three leading components cut off."""
    cuts, at = [(name, "")], 0
    for _ in range(3):
        at = name.find(".", at) + 1
        if at == 0:
            break
        cuts.append((name[at:], name[:at]))
    return cuts


def _score(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo], rules: Rename) -> int:
    try:
        view = own_names(base, rules)
    except UsageError:
        return -1
    return sum(name in view and base[view[name]].shape == info.shape for name, info in tuned.items())

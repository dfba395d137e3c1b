"""Pair the tensors of two checkpoints: which changed, are new, removed, resized, retyped or renamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diffpack.checkpoints import TensorInfo
from diffpack.errors import UsageError
from diffpack.format.manifest import CONVERTIBLE

Rename = tuple[tuple[str, str], ...]
"""(old prefix, new prefix) pairs; the first whose old prefix fits is taken."""


@dataclass(frozen=True)
class Pair:
    """One tensor of the tuned checkpoint and the base tensor it is compared with, if any.

    `base_name` is the name in the base's own file (before renaming).
    """

    name: str
    info: TensorInfo
    base_name: str | None = None
    base: TensorInfo | None = None

    @property
    def resized(self) -> bool:
        """Whether the base tensor has another shape."""
        return self.base is not None and self.base.shape != self.info.shape

    @property
    def retyped(self) -> bool:
        """Whether the base tensor has another dtype."""
        return self.base is not None and self.base.dtype != self.info.dtype

    @property
    def both_float(self) -> bool:
        """Whether both checkpoints have the tensor, as floats: its differences are numbers."""
        return self.base is not None and self.info.dtype.arithmetic


@dataclass(frozen=True)
class Pairing:
    """All pairs, sorted by name, and the (renamed) base tensors the tuned checkpoint lacks."""

    pairs: tuple[Pair, ...]
    removed: tuple[str, ...]
    rename: Rename


def renamed(name: str, rename: Sequence[tuple[str, str]]) -> str:
    """Give the name a base tensor has under the rename rules."""
    for old, new in rename:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def base_view(names: Iterable[str], rename: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Map new names to the base's own names. Raises `UsageError` if two tensors get one name."""
    view: dict[str, str] = {}
    for name in names:
        new = renamed(name, rename)
        if new in view:
            raise UsageError(f"renaming gives both {view[new]!r} and {name!r} the name {new!r}")
        view[new] = name
    return view


def pair_up(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo], rename: Rename | None = None) -> Pairing:
    """Pair two checkpoints' tensors; `rename` None looks for a common prefix by itself."""
    rules = find_rename(base, tuned) if rename is None else rename
    view = base_view(base, rules)
    pairs = []
    for name in sorted(tuned):
        own = view.get(name)
        if own is not None and comparable(base[own], tuned[name]):
            pairs.append(Pair(name, tuned[name], own, base[own]))
        else:
            pairs.append(Pair(name, tuned[name]))
    return Pairing(tuple(pairs), tuple(sorted(set(view) - set(tuned))), rules)


def comparable(base: TensorInfo, tuned: TensorInfo) -> bool:
    """Tell whether a base tensor can serve as the reference: the rules G4 and G6 of the specification."""
    if base.dtype != tuned.dtype and not {base.dtype.name, tuned.dtype.name} <= CONVERTIBLE:
        return False
    if base.shape == tuned.shape:
        return True
    overlap = all(min(a, b) for a, b in zip(base.shape, tuned.shape, strict=False))
    return len(base.shape) == len(tuned.shape) > 0 and tuned.dtype.bits >= 8 and overlap


def find_rename(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]) -> Rename:
    """Find the prefix rule that pairs most tensors by name, dtype and shape, if any beats no rule at all.

    Candidates are the prefixes, ending at a dot, that one side has before a name of the other side.
    """
    if not base or not tuned:
        return ()
    best: Rename = ()
    best_score = _score(base, tuned, ())
    if best_score == len(tuned):
        return ()
    for rule in sorted(_candidates(base, tuned)):
        score = _score(base, tuned, (rule,))
        if score > best_score:
            best, best_score = (rule,), score
    return best


def _candidates(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]) -> set[tuple[str, str]]:
    """Every pair of prefixes that turns some base name into a tuned name with the same tail and shape."""
    tails: dict[str, set[str]] = {}
    for name in tuned:
        for tail, prefix in _tails(name):
            tails.setdefault(tail, set()).add(prefix)
    rules: dict[tuple[str, str], int] = {}
    for name in base:
        for tail, prefix in _tails(name):
            for other in tails.get(tail, ()):
                if prefix != other and not (prefix and other):
                    rules[prefix, other] = rules.get((prefix, other), 0) + 1
    return set(sorted(rules, key=lambda rule: -rules[rule])[:_MOST_CANDIDATES])


_MOST_CANDIDATES = 16


def _tails(name: str) -> list[tuple[str, str]]:
    """Give (tail, prefix) for the whole name and for up to three leading components cut off."""
    cuts, at = [(name, "")], 0
    for _ in range(3):
        at = name.find(".", at) + 1
        if at == 0:
            break
        cuts.append((name[at:], name[:at]))
    return cuts


def _score(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo], rules: Rename) -> int:
    try:
        view = base_view(base, rules)
    except UsageError:
        return -1
    return sum(name in view and base[view[name]].shape == info.shape for name, info in tuned.items())

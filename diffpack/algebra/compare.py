"""compare: how two diffs of one base differ: where they meet, whether they pull the same way, how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, sqrt

import numpy as np

from diffpack.algebra.checks import check_base, check_names
from diffpack.algebra.delta import Delta, side_by_side
from diffpack.algebra.delta_source import Source
from diffpack.algebra.lifted import lifted
from diffpack.algebra.resolve import by_own_names
from diffpack.algebra.shared_names import share_names
from diffpack.algebra.steps import gathered
from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, open_diff
from diffpack.errors import WrongBaseError
from diffpack.support.memory import memory_told
from diffpack.support.parallel import run_all


@dataclass(frozen=True)
class Overlap:
    """Counts of one tensor, or of all: entries changed by the first, the second, both, and both in one direction.

    `products` are (first . second, first . first, second . second) of the float changes, None where only their signs
    are known (exact values without the base), the tensors are not floats, or a change or product is not finite; of all
    tensors together None if that is so of any tensor of floats. `floats` says whether there are floats at all.
    """

    first: int
    second: int
    both: int
    agreeing: int
    products: tuple[float, float, float] | None
    floats: bool = True

    @property
    def jaccard(self) -> float:
        """Entries both change / entries any changes (1 if there is none)."""
        union = self.first + self.second - self.both
        return self.both / union if union else 1.0

    @property
    def sign_agreement(self) -> float | None:
        """Of the entries both change, the share they change in one direction; None if there is none."""
        return self.agreeing / self.both if self.both else None

    @property
    def norms(self) -> tuple[float, float] | None:
        """L2 norms of both changes."""
        return None if self.products is None else (sqrt(self.products[1]), sqrt(self.products[2]))

    @property
    def cosine(self) -> float | None:
        """Cosine between the changes; None where floats are not known or one of them is zero."""
        if self.products is None or not (self.products[1] and self.products[2]):
            return None
        return self.products[0] / sqrt(self.products[1] * self.products[2])


@dataclass(frozen=True)
class TensorOverlap:
    """One tensor; `overlap` is None where the diffs give it different dtypes or shapes."""

    name: str
    overlap: Overlap | None


@dataclass(frozen=True)
class Comparison:
    """Two diffs of one base; tensors have the names of the first. `mismatched` ones are in no count."""

    first: Diff
    second: Diff
    total: Overlap
    tensors: tuple[TensorOverlap, ...]

    @property
    def known(self) -> Overlap:
        """The tensors whose float changes are known, together: norms and cosine are theirs alone."""
        items = [
            item.overlap for item in self.tensors if item.overlap is not None and item.overlap.products is not None
        ]
        return _total(items)

    @property
    def known_share(self) -> float | None:
        """Of the entries of float tensors that any of them changes, the share in tensors whose change is known.

        None if there is none.
        """
        items = [item.overlap for item in self.tensors if item.overlap is not None and item.overlap.floats]
        changed = sum(item.first + item.second for item in items)
        known = sum(item.first + item.second for item in items if item.products is not None)
        return known / changed if changed else None

    @property
    def mismatched(self) -> tuple[str, ...]:
        """Tensors the diffs give different dtypes or shapes."""
        return tuple(item.name for item in self.tensors if item.overlap is None)


@memory_told
def compare(
    first: DiffLike, second: DiffLike, base: CheckpointLike | None = None, *, threads: int | None = None
) -> Comparison:
    """Compare two diffs of one base, tensor by tensor and overall. Tied tensors count where they are stored.

    Tensors meet by the base's names, whatever the diffs rename. Exact diffs tell positions and signs without `base`,
    norms and cosines with it.

    Raises `WrongBaseError` (different bases, another base), `BaseNeededError` (coded against the base),
    `CorruptFileError`.
    """
    diffs = open_diff(first), open_diff(second)
    expected, actual = (diff.manifest.base.fingerprint for diff in diffs)
    if expected != actual:
        raise WrongBaseError(
            f"{diffs[1].name}: not a diff of the base of {diffs[0].name} (its base is {actual}, that one's {expected})",
            hint="`diffpack rebase` carries a diff over to another base",
        )
    checkpoint = None if base is None else open_checkpoint(base)
    if checkpoint is not None:
        check_base(diffs[0], checkpoint, threads)
        check_names(diffs[1], checkpoint)
    lift = lifted(diffs, checkpoint, threads)
    if lift is not None:
        named, checkpoint = lift.diffs, lift.base
    else:
        named = [by_own_names(diff, checkpoint, threads) for diff in diffs]
    shared = share_names(named, checkpoint, guess=True)
    first_source, second_source = (Source(diff, checkpoint, own) for diff, own in zip(named, shared, strict=True))
    sources = first_source, second_source
    names = sorted({*first_source.stored, *second_source.stored})
    overlaps = run_all([partial(_overlap, name, sources, checkpoint is not None) for name in names], threads)
    tensors = tuple(TensorOverlap(name, overlap) for name, overlap in zip(names, overlaps, strict=True))
    return Comparison(*diffs, _total([item for item in overlaps if item is not None]), tensors)


def _overlap(name: str, sources: tuple[Source, Source], based: bool) -> Overlap | None:
    there = [source for source in sources if source.stores(name)]
    infos = {source.infos(name) for source in there}
    if len(infos) > 1:
        return None
    info, before = infos.pop()
    records = [source.record(name) for source in there]
    floats = info.dtype.arithmetic and (based or before is None or not any(record.exact for record in records))
    nothing = Delta((info.words,), np.empty(0, np.int64), np.empty(0, np.float32))
    deltas = [(_floats if floats else _signs)(name, source) if source in there else nothing for source in sources]
    if not all(np.isfinite(delta.values).all() for delta in deltas):  # no lossy record's values are
        floats, deltas = False, [_signs(name, source) if source in there else nothing for source in sources]
    counts, products = np.zeros(4, np.int64), np.zeros(3)
    for block in side_by_side(deltas):
        one, two = block.matrix
        both = (one != 0) & (two != 0)
        counts += [np.count_nonzero(row) for row in (one, two, both, both & ((one > 0) == (two > 0)))]
        with np.errstate(over="ignore", invalid="ignore"):
            products += [one @ two, one @ one, two @ two]
    dot, square, other = products.tolist()
    first, second, shared, agreeing = counts.tolist()
    known = floats and bool(np.isfinite(products).all())
    return Overlap(
        first, second, shared, agreeing, (dot, square, other) if known else None, floats=info.dtype.arithmetic
    )


def _floats(name: str, source: Source) -> Delta:
    delta = source.change(name)
    return Delta((delta.entries,), delta.positions, delta.values)


def _signs(name: str, source: Source) -> Delta:
    """The directions of the changes: a step up the ordered-integer line makes a number larger."""
    record = source.record(name)
    positions, numbers = gathered(record.changes(), record.info.dtype)
    return Delta((record.info.words,), positions, np.sign(numbers).astype(np.float32))


def _total(items: Sequence[Overlap]) -> Overlap:
    known = [item.products for item in items if item.products is not None]
    unknown = [item for item in items if item.floats and item.products is None and (item.first or item.second)]
    products = tuple(sum(item[at] for item in known) for at in range(3))
    told = not unknown and all(map(isfinite, products)) and bool(known or not items)
    return Overlap(
        sum(item.first for item in items),
        sum(item.second for item in items),
        sum(item.both for item in items),
        sum(item.agreeing for item in items),
        (products[0], products[1], products[2]) if told else None,
        floats=any(item.floats for item in items),
    )

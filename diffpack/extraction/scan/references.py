"""Other references: base tensors of another name that tensors of the result are equal, or much nearer, to.

A head that was untied and then moved, layers that were given other numbers, a new tensor that is what another one was
before it changed: by name they are new, or changed all over. Compared with the right base tensor they cost little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from diffpack.checkpoints import Checkpoint
from diffpack.extraction.scan.nearness import (
    BETTER,
    FIRST_WORDS,
    NAME_BYTES,
    Sketch,
    distance,
    sample_of,
    sketch_of,
    steps_cost,
)
from diffpack.extraction.scan.scan import Scan, scan
from diffpack.support.parallel import run_all
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import Rename, own_names

_TRIED = 4
"""How many tensors, those nearest by their sketches, are measured by their samples."""
_DENSITY = 0.5
"""Where fewer words differ, the tensor of the same name is near enough."""


@dataclass(frozen=True)
class _Kin:
    """Base tensors of one dtype and shape: names, after renaming and in the base's file; sketches, a column each."""

    names: list[str]
    own: list[str]
    sketches: Sketch
    columns: Mapping[str, int]

    def sketch(self, own: str | None) -> Sketch | None:
        """The sketch of one of them, by its name in the base's file; None if it is of another dtype or shape."""
        at = None if own is None else self.columns.get(own)
        return None if at is None else self.sketches[:, at]

    def nearest(self, sketch: Sketch, most: int) -> list[int]:
        """The few whose sketches are nearest, at most so far away, nearest first; equal ones in order of name."""
        at = np.flatnonzero(distance(self.sketches[:FIRST_WORDS], sketch[:FIRST_WORDS]) <= most)
        distances = distance(self.sketches[:, at], sketch)
        order = np.argsort(distances, kind="stable")
        found: list[int] = at[order[distances[order] <= most]][: _TRIED + 1].tolist()
        return found


@dataclass(frozen=True)
class _Found:
    """A better source: the base tensor's name after renaming, and in the base's file."""

    source: str
    own: str


def with_better_references(
    stored: Sequence[Scan],
    base: Checkpoint,
    tuned: Checkpoint,
    rename: Rename,
    digests: Mapping[str, bytes],
    *,
    profile: str,
    threads: int | None,
) -> list[Scan]:
    """The scans to store, each against the base tensor that makes it cheapest; most stay as they are.

    A tensor that is equal to another base tensor is compared with that one, and then `unchanged`. A new one, or one
    of which most words differ, is compared with the one of its dtype and shape that a sample shows to be clearly
    nearer, if any. `digests` are the base's (32 bytes), by its own names. Equal costs go to the first name.
    """
    view = own_names(base.tensors, rename)
    worth = [item for item in stored if item.count * item.tuned.dtype.itemsize > NAME_BYTES]
    wanted = {item.digest for item in worth}
    equal: dict[tuple[TensorInfo, bytes], _Found] = {}
    for name in sorted(name for name, own in view.items() if digests[own] in wanted):
        equal.setdefault((base.info(view[name]), digests[view[name]]), _Found(name, view[name]))
    found = {item.pair.name: equal.get((item.pair.info, item.digest)) for item in worth}
    doubtful = [item for item in worth if found[item.pair.name] is None and _doubtful(item)]
    kin = _kin({item.pair.info for item in doubtful}, view, base, threads)
    doubtful = [item for item in doubtful if item.pair.info in kin]
    jobs = [partial(_nearest, item, kin[item.pair.info], base, profile) for item in doubtful]
    for item, nearest in zip(doubtful, run_all(jobs, threads), strict=True):
        found[item.pair.name] = nearest
    better = [(item, nearest) for item in stored if (nearest := found.get(item.pair.name)) is not None]
    scans = run_all([partial(_against, item, nearest, base, tuned) for item, nearest in better], threads)
    again = {item.pair.name: item for item in scans}
    return [again.get(item.pair.name, item) for item in stored]


def _doubtful(item: Scan) -> bool:
    """Whether another base tensor may be nearer."""
    pair = item.pair
    return pair.base is None or pair.resized or pair.retyped or item.density > _DENSITY


def _against(item: Scan, found: _Found, base: Checkpoint, tuned: Checkpoint) -> Scan:
    return scan(item.pair.beside(found.source, found.own, base.info(found.own)), base, tuned)


def _kin(
    wanted: set[TensorInfo], view: Mapping[str, str], base: Checkpoint, threads: int | None
) -> dict[TensorInfo, _Kin]:
    """Sketch the base tensors of the dtypes and shapes that are wanted."""
    names: dict[TensorInfo, list[str]] = {}
    for name in sorted(view):
        info = base.info(view[name])
        if info in wanted:
            names.setdefault(info, []).append(name)
    found = {}
    for info, alike in names.items():
        own = [view[name] for name in alike]
        rows = run_all([partial(_sketch_of_base, base, name) for name in own], threads)
        found[info] = _Kin(alike, own, np.stack(rows, axis=1), {name: at for at, name in enumerate(own)})
    return found


def _sketch_of_base(base: Checkpoint, name: str) -> Sketch:
    return sketch_of(base.word_source(name), base.info(name).dtype)


def _nearest(item: Scan, kin: _Kin, base: Checkpoint, profile: str) -> _Found | None:
    """The base tensor that a sample shows to be clearly cheaper than the present reference; None if there is none."""
    dtype = item.pair.info.dtype
    sketch, own = sketch_of(item.tuned, dtype), item.pair.base_name
    present = kin.sketch(own)
    if present is None:
        present = sketch_of(item.tuned, dtype, item.reference)
    nearest = kin.nearest(sketch, int(distance(present[:, None], sketch)[0]))
    tried = [at for at in nearest if kin.own[at] != own][:_TRIED]
    if not tried:
        return None
    after = sample_of(item.tuned)
    cost = steps_cost(sample_of(item.tuned, item.reference), after, dtype, profile)
    costs = [steps_cost(sample_of(base.word_source(kin.own[at])), after, dtype, profile) for at in tried]
    least = min(costs)
    saved = (cost - least) * item.tuned.size / after.size
    if least > BETTER * cost or saved <= NAME_BYTES:
        return None
    best = min(at for at, its in zip(tried, costs, strict=True) if its == least)
    return _Found(kin.names[best], kin.own[best])

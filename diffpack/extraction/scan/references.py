"""Other references: base tensors of another name that tensors of the result are equal, or much nearer, to.

A head that was untied and then moved, layers that were given other numbers, a new tensor that is what another one was
before it changed: by name they are new, or changed all over. Compared with the right base tensor they cost little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints import Checkpoint
from diffpack.extraction.scan.scan import Scan, scan
from diffpack.format.chunks import encode_chunk
from diffpack.format.values.exact import EXACT
from diffpack.support.parallel import run_all
from diffpack.tensors.dtypes import DType, Words, ordered
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import Reference
from diffpack.tensors.rename import Rename, own_names
from diffpack.tensors.word_source import WordSource

_RUNS, _RUN_WORDS = 16, 256
"""A sample: runs of neighbouring words, 4,096 in all, that tell the bytes of a tensor's steps to a few percent."""
_SKETCH_RUNS, _SKETCH_RUN_WORDS = 4, 16
"""A sketch: 64 words by which all tensors of a kind are compared first. They tell a near one from strangers."""
_FIRST_WORDS = 8
"""Words of the sketch that most strangers are told by."""
_FAR = 64
"""Coarse words so far apart, half the way to twice a float's size, are strangers'; how far does not matter."""
_TRIED = 4
"""How many tensors, those nearest by their sketches, are measured by their samples."""
_DENSITY = 0.5
"""Where fewer words differ, the tensor of the same name is near enough."""
_BETTER = 0.8
"""What another reference may cost of the present one's bytes: less is more than what a sample can be wrong by."""
_NAME_BYTES = 64
"""What a source costs in the manifest, at most: two long names. Less is not worth one."""

Sketch = npt.NDArray[np.int16]


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
        at = np.flatnonzero(_distance(self.sketches[:_FIRST_WORDS], sketch[:_FIRST_WORDS]) <= most)
        distances = _distance(self.sketches[:, at], sketch)
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
    equal: dict[tuple[TensorInfo, bytes], _Found] = {}
    for name in sorted(view):
        equal.setdefault((base.info(view[name]), digests[view[name]]), _Found(name, view[name]))
    worth = [item for item in stored if item.count * item.tuned.dtype.itemsize > _NAME_BYTES]
    found = {item.pair.name: equal.get((item.pair.info, item.digest)) for item in worth}
    doubtful = [item for item in worth if found[item.pair.name] is None and _doubtful(item)]
    kin = _kin({item.pair.info for item in doubtful}, view, base, threads)
    doubtful = [item for item in doubtful if item.pair.info in kin]
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
    return _sketch(base.word_source(name), base.info(name).dtype)


def _nearest(item: Scan, kin: _Kin, base: Checkpoint, profile: str) -> _Found | None:
    """The base tensor that a sample shows to be clearly cheaper than the present reference; None if there is none."""
    dtype = item.pair.info.dtype
    sketch, own = _sketch(item.tuned, dtype), item.pair.base_name
    present = kin.sketch(own)
    if present is None:
        present = _sketch(item.tuned, dtype, item.reference)
    nearest = kin.nearest(sketch, int(_distance(present[:, None], sketch)[0]))
    tried = [at for at in nearest if kin.own[at] != own][:_TRIED]
    if not tried:
        return None
    after = _sample(item.tuned)
    cost = _cost(_sample(item.tuned, item.reference), after, dtype, profile)
    costs = [_cost(_sample(base.word_source(kin.own[at])), after, dtype, profile) for at in tried]
    least = min(costs)
    saved = (cost - least) * item.tuned.size / after.size
    if least > _BETTER * cost or saved <= _NAME_BYTES:
        return None
    best = min(at for at, its in zip(tried, costs, strict=True) if its == least)
    return _Found(kin.names[best], kin.own[best])


def _sample(
    words: WordSource, reference: Reference | None = None, runs: int = _RUNS, run_words: int = _RUN_WORDS
) -> Words:
    """A sample of a tensor's words, all if they are few; with `reference` that reference's, at the same places."""
    size, starts = words.size, [0]
    if size > runs * run_words:
        size, starts = run_words, np.linspace(0, size - run_words, runs).astype(int).tolist()
    spans = [(start, start + size) for start in starts]
    return np.concatenate([words[a:b] if reference is None else reference.slice(a, b) for a, b in spans])


def _sketch(words: WordSource, dtype: DType, reference: Reference | None = None) -> Sketch:
    """A few words, as `_sample` takes them, made coarse: the upper 16 bits of floats, all bits of integers in 16."""
    line = ordered(_sample(words, reference, _SKETCH_RUNS, _SKETCH_RUN_WORDS), dtype)
    bits = dtype.word_bits
    if dtype.signed_magnitude:
        line = line >> np.array(max(bits - 16, 0), line.dtype)
        bits = 16
    while bits > 16:
        bits //= 2
        line = line ^ (line >> np.array(bits, line.dtype))
    coarse: Sketch = line.astype(np.int16)
    return coarse


def _distance(sketches: Sketch, sketch: Sketch) -> npt.NDArray[np.int64]:
    """How far each column of sketches is from one sketch, words that are far apart being no farther than `_FAR`."""
    steps = np.abs(sketches - sketch[:, None]).view(np.uint16)  # modulo 2^16, where -2^15 is its own negative
    distance: npt.NDArray[np.int64] = np.minimum(steps, np.uint16(_FAR)).sum(axis=0, dtype=np.uint16).astype(np.int64)
    return distance


def _cost(before: Words, after: Words, dtype: DType, profile: str) -> int:
    """The bytes that the steps of a sample take."""
    return len(encode_chunk([EXACT.encode(before, after, dtype)], profile).data)

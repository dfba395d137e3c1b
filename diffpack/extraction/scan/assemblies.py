"""Fused and split tensors: which slices of base tensors a tensor of the tuned checkpoint is, or is near to.

Libraries store query, key and value as three matrices or as one, gate and up beside or over one another, experts each
by itself or in one stack, matrices as they are or turned. By name such tensors are new, and their parts are removed.
Those are laid along the whole, one after the other, as far as a few words of each show them to be near. Where that
does not cover it, rows that are equal, or near, are looked for one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.joined_words import joined
from diffpack.diff.against import assembled_words
from diffpack.extraction.scan.nearness import BETTER, sample_of, steps_cost
from diffpack.extraction.scan.pairs import Pair, Pairing
from diffpack.extraction.scan.rows import RowShelf
from diffpack.extraction.scan.scan import Scan
from diffpack.extraction.scan.tiles import Part, Shelf, along, near
from diffpack.tensors.dtypes import DType
from diffpack.tensors.info import TensorInfo, runs
from diffpack.tensors.reference import Reference
from diffpack.tensors.rename import own_names
from diffpack.tensors.slices import SMALLEST_BITS, AssembledWords, Assembly, Slice, Turned
from diffpack.tensors.word_source import WordSource

_LEAST_ENTRIES = 16
"""Entries of a tensor that is looked at, and those of square ones that are looked at before their sketches are."""


def may_be_made(pair: Pair) -> bool:
    """Whether a tensor may be made of slices whatever its words are: the base lacks it, or has it in another shape."""
    return pair.base is None or pair.resized


def with_assemblies(
    pairing: Pairing, scans: Mapping[str, Scan], base: Checkpoint, tuned: Checkpoint, profile: str
) -> Pairing:
    """The pairing with tensors that are made of slices of others compared with those; most pairs stay as they are.

    Looked at are tensors that the base does not have, or in another shape, and square ones that are far from the
    base's; and the base tensors that are gone, or of these names. An assembly is taken if a sample shows it to be
    nearer than what the tensor is compared with now. `scans` are those of all pairs but the ones that `may_be_made`.
    """
    cut = [pair for pair in pairing.pairs if _cut(pair.info)]
    turned = _may_be_turned([pair for pair in cut if _square(pair) and scans[pair.name].kept is None], base, tuned)
    wanted = {pair.name: pair for pair in cut if may_be_made(pair) or pair.name in turned}
    view = own_names(base.tensors, pairing.rename)
    gone = [*pairing.removed, *(pair.name for pair in wanted.values() if pair.base is not None)]
    sources = {name: base.info(view[name]) for name in gone if _cut(base.info(view[name]))}
    if not wanted or not sources:
        return pairing
    search = _Search(base, tuned, view, sources, wanted, profile)
    better = search.found()
    return replace(pairing, pairs=tuple(better.get(pair.name, pair) for pair in pairing.pairs))


def _cut(info: TensorInfo) -> bool:
    """Whether a tensor can be cut into entries, and has enough of them to tell it from others."""
    dtype = info.dtype
    return dtype.bits == dtype.word_bits >= SMALLEST_BITS and info.words >= _LEAST_ENTRIES


def _square(pair: Pair) -> bool:
    """Whether a tensor may be the base's turned, which its shape does not tell."""
    shape = pair.info.shape
    return pair.base == pair.info and len(shape) > 1 and shape[-1] == shape[-2] and pair.base_name is not None


def _may_be_turned(square: Sequence[Pair], base: Checkpoint, tuned: Checkpoint) -> set[str]:
    """Name the square matrices that are far from the base's: they may be these turned. All change in many places."""
    far = set()
    for run in runs(pair.info for pair in square):
        pairs = square[run]
        after = [tuned.word_source(pair.name) for pair in pairs]
        before = [base.word_source(pair.base_name or "") for pair in pairs]
        for at in np.flatnonzero(~_begin_alike(before, after)).tolist():
            info, name = pairs[at].info, pairs[at].name
            ours, theirs = Part(name, info, after[at]), Part(name, info, before[at])
            if not near(ours.sketch(False, 0, ours.entries), theirs.sketch(False, 0, theirs.entries)):
                far.add(name)
    return far


def _begin_alike(before: Sequence[WordSource], after: Sequence[WordSource]) -> npt.NDArray[np.bool_]:
    """For which tensors of a run most of the first words are the same, and not all one: neither is the other turned.

    Most square tensors of a dense fine-tune are looked at no longer than this. The first word of all stays in place.
    """
    starts = np.cumsum([0, *(words.size for words in before[:-1])])
    places = (starts[:, None] + np.arange(1, _LEAST_ENTRIES)).reshape(-1)
    old, new = (joined(sources)[places].reshape(starts.size, -1) for sources in (before, after))
    found: npt.NDArray[np.bool_] = (2 * np.count_nonzero(old == new, axis=1) > old.shape[1]) & (old != old[:, :1]).any(
        1
    )
    return found


@dataclass(frozen=True)
class _Search:
    """The tensors wanted, the base tensors that may be their sources (by renamed names), and where both are read."""

    base: Checkpoint
    tuned: Checkpoint
    view: Mapping[str, str]
    sources: Mapping[str, TensorInfo]
    wanted: Mapping[str, Pair]
    profile: str

    def found(self) -> dict[str, Pair]:
        """The pairs that are better compared with an assembly, by name."""
        turned = Turned()
        better: dict[str, Pair] = {}
        for dtype in sorted({pair.info.dtype for pair in self.wanted.values()}, key=lambda dtype: dtype.name):
            for name, assembly in self._assemblies(dtype):
                if name not in better:
                    words = assembled_words(assembly, self.base, self.view, turned)
                    pair = self.wanted[name]
                    if self._nearer(pair, words):
                        better[name] = pair.made_of(assembly, words)
        return better

    def _assemblies(self, dtype: DType) -> Iterable[tuple[str, Assembly]]:
        """Candidates of one dtype: fused, split, then row by row, each kind in order of name."""
        wanted = {name: pair.info for name, pair in self.wanted.items() if pair.info.dtype == dtype}
        sources = {name: info for name, info in self.sources.items() if info.dtype == dtype}
        ours = [Part(name, info, self.tuned.word_source(name)) for name, info in sorted(wanted.items())]
        theirs = [Part(name, info, self.base.word_source(self.view[name])) for name, info in sorted(sources.items())]
        left = set(wanted)
        shelf = Shelf(theirs)
        for whole in ours:
            laid = along(whole, shelf)
            if laid is not None:
                left.discard(whole.name)
                pieces = tuple(Slice(tile.part.name, tile.swapped, 0, tile.part.entries) for tile in laid.tiles)
                yield whole.name, Assembly(whole.info.shape, laid.swapped, pieces)
        shelf = Shelf([part for part in ours if part.name in left])
        for whole in theirs:
            laid = along(whole, shelf, left.__contains__)
            if laid is not None:
                for tile in laid.tiles:
                    left.discard(tile.part.name)
                    piece = Slice(whole.name, laid.swapped, tile.start, tile.part.entries)
                    yield tile.part.name, Assembly(tile.part.info.shape, tile.swapped, (piece,))
        rows_of = RowShelf(theirs)
        for whole in ours:
            if whole.name in left:
                rows = rows_of.slices(whole)
                if rows:
                    yield whole.name, Assembly(whole.info.shape, False, tuple(rows))

    def _nearer(self, pair: Pair, words: AssembledWords) -> bool:
        """Whether a sample shows the assembly to be nearer than what the tensor is compared with now.

        Clearly so, if that is the base tensor of its name, in another shape. Else it need not save anything: that
        slices cover all of it says enough, and what a tensor was matters to lossy values and to merging, too.
        """
        source = self.tuned.word_source(pair.name)
        own = None if pair.base_name is None else self.base.word_source(pair.base_name)
        after, dtype = sample_of(source), pair.info.dtype
        now = steps_cost(sample_of(source, Reference(pair.info, pair.base, own)), after, dtype, self.profile)
        then = steps_cost(sample_of(words), after, dtype, self.profile)
        return then <= now if own is None else then < BETTER * now


def slices_of(pairs: Iterable[Pair], aliases: Mapping[str, str]) -> dict[str, Assembly]:
    """What the manifest says of tensors made of slices; one that is tied to another is what that one is."""
    return {pair.name: pair.assembly for pair in pairs if pair.assembly is not None and pair.name not in aliases}

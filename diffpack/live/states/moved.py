"""What became of one tensor: compared where it lies, so that only words that changed come to the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from diffpack.diff.entries import Entry, exact_entry
from diffpack.diff.group_decoder import Changes
from diffpack.format.values.exact import EXACT
from diffpack.live.states.state import State, is_here
from diffpack.live.words import TensorWords, host_words
from diffpack.tensors.digests import tensor_digest
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo

_BLOCK_WORDS = 1 << 22
"""Words compared at once: few launches on a GPU, and little memory beside the tensors."""
_SPARSE = 1 / 4
"""Above this density of changes the whole tensor takes fewer bytes than its changes, with their positions."""


@dataclass(frozen=True)
class Moved:
    """The words of a tensor that are others now: sorted positions, and the words before and after."""

    positions: Positions
    before: Words
    after: Words


@dataclass(frozen=True)
class Became:
    """What became of the tensor `name`: its record (None: it is the base's, or tied), and its digest (32 bytes).

    `moved` are the words that changed, None where it is stored whole.
    """

    name: str
    digest: bytes
    entry: Entry | None = None
    moved: Moved | None = None


def became(name: str, before: State, after: State) -> Became:
    """Compare a tensor with what it was, on the device where it is now. Raises `UnsupportedCheckpointError`."""
    info = after.info(name)
    if before.tensors.get(name) != info:
        return _whole(name, before, after)
    moved = _compared(before.memory(name), after.memory(name))
    if moved is None:
        return _whole(name, before, after)
    if not moved.positions.size:
        return Became(name, before.digest(name), moved=moved)
    base_digest, digest = _digests(name, before, after, moved)
    steps = EXACT.encode(moved.before, moved.after, info.dtype)
    changes = Changes(0, info.words, moved.positions, steps)
    return Became(name, digest, Entry(name, info, info, base_digest, digest, (changes,)), moved)


def _whole(name: str, before: State, after: State) -> Became:
    """A tensor that is new, of another dtype or shape, or mostly other: stored from all its words."""
    known: tuple[TensorInfo, Words] | None = None
    if name in before.tensors:
        known = before.info(name), before.words(name)
    entry = exact_entry(name, after.info(name), after.words(name), known)
    assert entry.digest is not None
    return Became(name, entry.digest, entry)


def _compared(before: TensorWords, after: TensorWords) -> Moved | None:
    """The words that differ; None if they are too many to be worth their positions."""
    found = list(_differing(before, after, _SPARSE * after.info.words))
    if found and found[-1] is None:
        return None
    parts = [part for part in found if part is not None]
    word = after.info.dtype.word
    return Moved(
        np.concatenate([np.empty(0, np.int64), *(part.positions for part in parts)]),
        np.concatenate([np.empty(0, word), *(part.before for part in parts)]),
        np.concatenate([np.empty(0, word), *(part.after for part in parts)]),
    )


def _differing(before: TensorWords, after: TensorWords, most: float) -> Iterator[Moved | None]:
    """The words that differ, block by block; None, and no more, once they are over `most`."""
    count = 0
    word = after.info.dtype.word
    for start in range(0, after.info.words, _BLOCK_WORDS):
        stop = min(start + _BLOCK_WORDS, after.info.words)
        old, new = before.slice(start, stop).to(after.device), after.slice(start, stop)
        places = torch.nonzero(old != new).flatten()
        count += places.numel()
        if count > most:
            yield None
            return
        if places.numel():
            here = places.to(torch.int32).cpu().numpy().astype(np.int64) + start
            yield Moved(here, host_words(old[places], word), host_words(new[places], word))


def _digests(name: str, before: State, after: State, moved: Moved) -> tuple[bytes, bytes]:
    """The digests of a tensor before and after: from its own words if these are here, else from those before."""
    if is_here(after.given[name]):
        return before.digest(name), tensor_digest(after.word_source(name))
    words = np.array(before.words(name))
    base_digest = before.digest(name, words)
    words[moved.positions] = moved.after
    return base_digest, tensor_digest(words)

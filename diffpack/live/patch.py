"""A task as it is written into a module: for each place that changes, positions and the words that come there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffpack.live.places import Place


@dataclass(frozen=True, eq=False)
class LowRank:
    """What a task adds to a matrix: left (rows, rank) @ right (rank, columns), and `added` at flat positions `index`.

    All float32 on the place's device. The words of the entry are the base's and this, summed and rounded.
    """

    left: Tensor
    right: Tensor
    index: Tensor
    added: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return self.left.nbytes + self.right.nbytes + self.index.nbytes + self.added.nbytes


@dataclass(frozen=True, eq=False)
class Entry:
    """What a task puts into one place: what its result tensor `name` is made of there.

    `index` are sorted flat positions in words (C order; int32 or int64), None for all words. `words` are the result's,
    as integers as wide as a word. Both are on the place's device. `low_rank` is how a matrix came to them, if it has
    few enough factors to be worth multiplying with.
    """

    place: Place
    name: str
    index: Tensor | None
    words: Tensor
    low_rank: LowRank | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of positions, words and factors."""
        positions = 0 if self.index is None else self.index.nbytes
        factors = 0 if self.low_rank is None else self.low_rank.nbytes
        return positions + self.words.nbytes + factors

    def same_as(self, other: Entry) -> bool:
        """Whether another entry puts the same words at the same positions."""
        if (self.index is None) != (other.index is None) or self.words.shape != other.words.shape:
            return False
        alike = self.index is None or other.index is None or bool((self.index == other.index).all())
        return alike and bool((self.words == other.words).all())


@dataclass(frozen=True, eq=False)
class Patch:
    """A decoded task: `entries`, one a place.

    `elsewhere` names the result's tensors that differ from the module's and have no place in it, `misfits` those of
    them that it has in another shape. `notes` are remarks for people.
    """

    entries: tuple[Entry, ...]
    elsewhere: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory, on all devices."""
        return sum(entry.nbytes for entry in self.entries)


BASE = Patch(())
"""No task: the base as it is."""

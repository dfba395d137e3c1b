"""What the tasks of a batch make of one tensor of a module, in the forms that modules compute with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffpack.live.mixed.matrix import LowRankMatrix, SparseMatrix
from diffpack.live.mixed.rows import Group, Rows
from diffpack.live.patch import Entry, LowRank
from diffpack.live.places import Place
from diffpack.support.cache import Cache

Form = Tensor | SparseMatrix | LowRankMatrix | None
Prepared = Cache[tuple[int, str, str], Form]
"""Forms that were made, by the task's version, the place's name and the form's: another version never finds them."""

SPARSE_UP_TO = 0.02
"""The share of changed entries from which a product with the task's own weights takes less time than the sparse one,
whatever the number of tokens (768 x 768, 8 to 512 tokens a group, MKL)."""
_PRODUCT_DTYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16}


def prepared(limit: int) -> Prepared:
    """A store of prepared forms that keeps up to `limit` bytes."""
    return Cache(lambda form: 0 if form is None else form.nbytes, limit)


class Changed:
    """A place and what each group of rows has there. The base must be in the model while forms are made."""

    def __init__(self, place: Place, rows: Rows, store: Prepared) -> None:
        self.place = place
        self.tensor = place.tensor
        self._store = store
        self._held: dict[tuple[Group, str], Form] = {}
        self._entries = {group: group.entries[place] for group in rows.groups if place in group.entries}

    def __contains__(self, group: object) -> bool:
        """Whether a group has something else there than the base."""
        return group in self._entries

    def entry(self, group: Group) -> Entry:
        """What a group puts there."""
        return self._entries[group]

    def words(self, group: Group) -> Tensor:
        """The values a group puts there, in the tensor's dtype, one after the other."""
        return self._entries[group].words.view(self.tensor.dtype)

    def whole(self, group: Group) -> Tensor:
        """The tensor as a group has it: the base's own where nothing changes."""
        if group not in self._entries:
            return self.tensor.detach()
        entry = self._entries[group]
        if entry.index is None:
            return self.words(group).view(self.tensor.shape)
        patched = self._store.get((group.key, self.place.name, "whole"), lambda: self._patched(entry))
        assert isinstance(patched, Tensor)
        return patched

    def _patched(self, entry: Entry) -> Tensor:
        assert entry.index is not None
        with torch.inference_mode(False):
            integers = self.place.words.gather(None)
            integers.scatter_(0, entry.index.long(), entry.words)
        return integers.view(self.tensor.dtype).view(self.tensor.shape)

    def difference(self, group: Group) -> Tensor | None:
        """What a group adds to the tensor, in float32 (float64 for such); None unless it is finite everywhere."""

        def make() -> Tensor | None:
            wide = _wide(self.tensor.dtype)
            added = self.whole(group).to(wide) - self.tensor.detach().to(wide)
            return added if bool(added.isfinite().all()) else None

        form = self._form(group, "difference", make)
        assert form is None or isinstance(form, Tensor)
        return form

    def matrix(self, group: Group, *, inputs_first: bool) -> SparseMatrix | LowRankMatrix | None:
        """What a group adds to a matrix of weights, to be multiplied with: its changed entries, or its factors.

        The weights are (inputs, outputs) with `inputs_first`, else (outputs, inputs). None where its own weights are
        to be used instead: many entries change without factors, or by what is not a finite number.
        """

        def make() -> SparseMatrix | LowRankMatrix | None:
            entry = self._entries[group]
            if entry.low_rank is not None and self.tensor.dtype in _PRODUCT_DTYPES:
                return self._by_factors(entry.low_rank, inputs_first=inputs_first)
            if entry.index is None or entry.index.numel() > SPARSE_UP_TO * self.tensor.numel():
                return None
            if self.tensor.dtype not in _PRODUCT_DTYPES:
                return None
            wide = _wide(self.tensor.dtype)
            before = self.place.words.gather(entry.index).view(self.tensor.dtype).to(wide)
            added = self.words(group).to(wide) - before
            if not bool(added.isfinite().all()):
                return None
            return SparseMatrix.of(entry.index, added, self.tensor.shape, inputs_first=inputs_first)

        form = self._form(group, "inputs first" if inputs_first else "outputs first", make)
        assert form is None or isinstance(form, SparseMatrix | LowRankMatrix)
        return form

    def _by_factors(self, low_rank: LowRank, *, inputs_first: bool) -> LowRankMatrix | None:
        """Factors, and the entries beside them; None if these are many."""
        wide, shape = _wide(self.tensor.dtype), self.tensor.shape
        if low_rank.index.numel() > SPARSE_UP_TO * self.tensor.numel():
            return None
        rest = None
        if low_rank.index.numel():
            rest = SparseMatrix.of(low_rank.index, low_rank.added.to(wide), shape, inputs_first=inputs_first)
        left, right = low_rank.left.to(wide), low_rank.right.to(wide)
        return LowRankMatrix(left, right, rest) if inputs_first else LowRankMatrix(right.t(), left.t(), rest)

    def _form(self, group: Group, name: str, make: Callable[[], Form]) -> Form:
        """A small form, held while the batch is: no limit makes it anew at each forward."""
        if (group, name) not in self._held:
            with torch.inference_mode(False), torch.no_grad():
                self._held[group, name] = self._store.get((group.key, self.place.name, name), make)
        return self._held[group, name]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which differences of a dtype are held."""
    return torch.float64 if dtype == torch.float64 else torch.float32

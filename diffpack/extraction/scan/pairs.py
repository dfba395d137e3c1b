"""Pair the tensors of two checkpoints: which changed, are new, removed, resized, retyped or renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffpack.checkpoints import Checkpoint
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.reference import comparable
from diffpack.tensors.rename import Rename, own_names
from diffpack.tensors.slices import AssembledWords, Assembly
from diffpack.tensors.word_source import WordSource


@dataclass(frozen=True)
class Pair:
    """One tensor of the tuned checkpoint and the base tensor it is compared with, if any.

    `base_name` is the name in the base's own file (before renaming). `source` is the name, after renaming, of a base
    tensor that is compared in place of the one of this name; `added` says that this name had none of its dtype and
    shape. `assembly` are the slices of base tensors, by such names, that it is compared with instead, and `assembled`
    what they come to.
    """

    name: str
    info: TensorInfo
    base_name: str | None = None
    base: TensorInfo | None = None
    source: str | None = None
    added: bool = False
    assembly: Assembly | None = None
    assembled: AssembledWords | None = None

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
        return self.float_reference and not self.added

    @property
    def float_reference(self) -> bool:
        """Whether it is compared with a tensor of floats, of whatever name."""
        return self.base is not None and self.info.dtype.arithmetic

    def base_words(self, checkpoint: Checkpoint) -> WordSource | None:
        """The words of what it is compared with, from the base."""
        if self.assembled is not None:
            return self.assembled
        return checkpoint.word_source(self.base_name) if self.base_name is not None else None

    def made_of(self, assembly: Assembly, words: AssembledWords) -> Pair:
        """The same tensor, compared with what slices of base tensors come to."""
        return Pair(self.name, self.info, base=self.info, assembly=assembly, assembled=words)

    def beside(self, source: str, base_name: str, base: TensorInfo) -> Pair:
        """The same tensor, compared with another base tensor of its dtype and shape."""
        added = self.base is None or self.resized
        return Pair(self.name, self.info, base_name, base, source, added)


@dataclass(frozen=True)
class Pairing:
    """All pairs, sorted by name, and the (renamed) base tensors the tuned checkpoint lacks."""

    pairs: tuple[Pair, ...]
    removed: tuple[str, ...]
    rename: Rename


def pair_up(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo], rename: Rename) -> Pairing:
    """Pair two checkpoints' tensors by name. Raises `UsageError` if the rules give two tensors one name."""
    view = own_names(base, rename)
    pairs = []
    for name in sorted(tuned):
        own = view.get(name)
        if own is not None and comparable(base[own], tuned[name]):
            pairs.append(Pair(name, tuned[name], own, base[own]))
        else:
            pairs.append(Pair(name, tuned[name]))
    return Pairing(tuple(pairs), tuple(sorted(set(view) - set(tuned))), rename)

"""A base with further tensors, made of its own."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from pathlib import Path

from diffpack.checkpoints import Checkpoint
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import Rename
from diffpack.tensors.undo_rename import base_names
from diffpack.tensors.word_source import WordSource


class LiftedBase(Checkpoint):
    """A base that has further tensors, some in place of its own.

    `made` says which, by names of the base's own kind, and `source` gives the words of one, to be read part by part.
    """

    def __init__(self, base: Checkpoint, made: Mapping[str, TensorInfo], source: Callable[[str], WordSource]) -> None:
        super().__init__(base.source, base.path)
        self.layout, self.folder, self.notes, self.left_out = base.layout, base.folder, base.notes, base.left_out
        self.ties = {name: first for name, first in base.ties.items() if not {name, first} & made.keys()}
        self._base = base
        self._made = frozenset(made)
        self._source = source
        self._tensors = {**base.tensors, **made}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words; those of a further one made anew."""
        if name not in self._made:
            return self._base.words(name)
        source = self._source(name)
        return source[0 : source.size]

    def word_source(self, name: str) -> WordSource:
        """The same, to be read part by part."""
        return self._source(name) if name in self._made else self._base.word_source(name)

    @property
    def files(self) -> list[Path]:
        """The files of the base."""
        return self._base.files


def own_name(name: str, rename: Rename, names: Mapping[str, str], there: Container[str]) -> str | None:
    """A name in a base that rename rules call `name`: that of the tensor it takes the place of, or a free one.

    `names` leads from the names that the rules give to the base's own, `there` are the latter.
    """
    taken = names.get(name)
    if taken is not None:
        return taken
    return next((own for own in base_names(name, rename) if own not in there), None)

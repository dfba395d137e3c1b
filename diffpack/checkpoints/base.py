"""What every checkpoint layout offers: named tensors, read one at a time as words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from diffpack.errors import MissingTensorError
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo


class Checkpoint(ABC):
    """A whole model as named tensors, read lazily.

    `source` is what errors call it, `layout` names the file layout, `path` is the file or folder it was
    opened from (None for tensors in memory), `folder` the model folder it was found in, if that was named,
    `notes` are remarks for people (keys skipped, nesting found).
    Reading is safe from several threads.
    """

    layout: str = "?"

    def __init__(self, source: str, path: Path | None = None) -> None:
        self.source = source
        self.path = path
        self.folder: Path | None = None
        self.notes: list[str] = []

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the order the layout stores them."""

    @abstractmethod
    def words(self, name: str) -> Words:
        """Give a tensor's flat words, read-only; memory-mapped where the layout allows.

        Raises `MissingTensorError` for an unknown name, `CheckpointError` if its bytes cannot be read.
        """

    @property
    def files(self) -> list[Path]:
        """The files the tensors are stored in (empty for tensors in memory)."""
        return [self.path] if self.path is not None else []

    def info(self, name: str) -> TensorInfo:
        """Give dtype and shape of a tensor. Raises `MissingTensorError`."""
        try:
            return self.tensors[name]
        except KeyError:
            raise MissingTensorError(f"{self.source}: no tensor {name!r}") from None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors' data."""
        return sum(info.nbytes for info in self.tensors.values())

    def close(self) -> None:  # noqa: B027 - most layouts have nothing to release
        """Release open files; views handed out before stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

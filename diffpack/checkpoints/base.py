"""What every checkpoint layout offers: named tensors, read one at a time as words, and written the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from diffpack.errors import MissingTensorError
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import tensor_digest
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
        """A tensor's flat words, read-only; memory-mapped where the layout allows.

        Raises `MissingTensorError` for an unknown name, `CheckpointError` if its bytes cannot be read.
        """

    @property
    def files(self) -> list[Path]:
        """The files the tensors are stored in (empty for tensors in memory)."""
        return [self.path] if self.path is not None else []

    def info(self, name: str) -> TensorInfo:
        """Dtype and shape of a tensor. Raises `MissingTensorError`."""
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


class CheckpointWriter(ABC):
    """A context manager that publishes the checkpoint when its body succeeds and leaves nothing otherwise."""

    @abstractmethod
    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write `data` (1-D words) at byte `offset` of tensor `name`.

        Every byte of every tensor arrives exactly once, the pieces of one tensor in order; pieces of
        different tensors may arrive from different threads at the same time. Tensors without bytes get no call.
        """

    @abstractmethod
    def publish(self) -> None:
        """Make the finished checkpoint appear under its name."""

    @abstractmethod
    def discard(self) -> None:
        """Remove everything written so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.publish()
        else:
            self.discard()


def digests_of(checkpoint: Checkpoint, names: Iterable[str], threads: int | None = None) -> dict[str, bytes]:
    """Hash tensors of a checkpoint in threads: name -> BLAKE3 (32 bytes) of the tensor's bytes."""
    wanted = list(names)
    return dict(zip(wanted, run_all([partial(_digest, checkpoint, name) for name in wanted], threads), strict=True))


def _digest(checkpoint: Checkpoint, name: str) -> bytes:
    return tensor_digest(checkpoint.words(name))

"""What every checkpoint layout offers: named tensors, read one at a time as words, and written the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy.typing as npt

from diffpack.errors import MissingTensorError
from diffpack.format.hdf5_structure import FileStructure
from diffpack.support.parallel import run_all
from diffpack.tensors.digests import tensor_digest
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource


class Checkpoint(ABC):
    """A whole model as named tensors, read lazily.

    `source` is what errors call it, `layout` names the file layout, `path` is the file or folder it was
    opened from (None for tensors in memory), `folder` the model folder it was found in, if that was named,
    `notes` are remarks for people (keys skipped, nesting found), `left_out` names what of the files is no tensor and in
    no diff: training state, files that are not kept.
    `advice` is what people should be told at once, and what to do about it.
    `ties` leads from the further names of a tensor to its first, where the file holds one tensor under several.
    Reading is safe from several threads.
    """

    layout: str = "?"
    live = False
    """Whether it is a model in memory, which may lack, add and rename tensors against the files it came from."""
    named_for_module = False
    """Whether its names are those of a module, which takes tensors back under no others."""

    def __init__(self, source: str, path: Path | None = None) -> None:
        self.source = source
        self.path = path
        self.folder: Path | None = None
        self.notes: list[str] = []
        self.left_out: list[str] = []
        self.advice: list[str] = []
        self.ties: dict[str, str] = {}

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the order the layout stores them."""

    @abstractmethod
    def words(self, name: str) -> Words:
        """A tensor's flat words, read-only; memory-mapped where the layout allows.

        Mapped words are not to be used once another program cuts the file short: that ends the process. What is only
        walked is read from `word_source`, which then raises. Raises `MissingTensorError` for an unknown name,
        `CheckpointError` if its bytes cannot be read, or the file has become shorter.
        """

    def word_source(self, name: str) -> WordSource:
        """A tensor's words to be read part by part, in bounded memory where the layout allows.

        Raises as `words` does, here or when a part is read.
        """
        return self.words(name)

    @property
    def files(self) -> list[Path]:
        """The files the tensors are stored in (empty for tensors in memory)."""
        return [self.path] if self.path is not None else []

    def header_files(self) -> list[tuple[str, bytes]] | None:
        """The names of its files and their headers, if it is made of safetensors; None if it is not."""
        return None

    def index_file(self) -> tuple[str, bytes] | None:
        """The name and the bytes of its shard index, if its files are safetensors with one."""
        return None

    def structure(self) -> tuple[FileStructure, list[str]] | None:
        """What an HDF5 file holds beside its tensors, and what of that cannot be kept; None for other files."""
        return None

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


class Place(NamedTuple):
    """Where the words [first, stop) of a block belong: at byte `offset` of the tensor `name`."""

    name: str
    offset: int
    first: int
    stop: int


class CheckpointWriter(ABC):
    """A context manager that publishes the checkpoint when its body succeeds and leaves nothing otherwise."""

    @abstractmethod
    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Write `data` (1-D words) at byte `offset` of tensor `name`.

        Every byte of every tensor arrives exactly once, the pieces of one tensor in order; pieces of
        different tensors may arrive from different threads at the same time. Tensors without bytes get no call.
        """

    def write_block(self, words: Words, places: Sequence[Place]) -> None:
        """Write words of one tensor or of several, each piece as `write` does."""
        for place in places:
            self.write(place.name, place.offset, words[place.first : place.stop])

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
    return tensor_digest(checkpoint.word_source(name))

"""Tensors of bases in memory, once in a process: models made from one base share what they do not change.

They are held weakly: a tensor goes when the last model with it goes, and is read from the files again when another one
is made. Nobody may write into them, which `is_shared` tells.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.checkpoints.torch_tensors import as_tensor, tensor_words
from diffpack.support.inputs import Inputs, Signature, signature
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource


@dataclass(frozen=True)
class _Held:
    """A tensor that is held weakly: as long as anyone has its memory."""

    storage: StorageWeakRef
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Self:
        """Hold a whole contiguous tensor."""
        return cls(StorageWeakRef(tensor.untyped_storage()), tensor.dtype, tuple(tensor.shape), tensor.stride())

    @property
    def gone(self) -> bool:
        """Whether nobody has it any more."""
        return bool(self.storage.expired())

    def tensor(self) -> torch.Tensor | None:
        """The tensor, None if it is gone."""
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            return None
        empty = torch.empty(0, dtype=self.dtype, device=storage.device)
        return empty.set_(storage, 0, self.shape, self.stride)


_Files = tuple[tuple[str, Signature], ...]
_Key = tuple[str, str, str]
"""The fingerprint of a base, the name of one of its tensors, a device."""
_lock = threading.RLock()
_fingerprints: dict[_Files, str] = {}
_tensors: dict[_Key, _Held] = {}
_addresses: dict[int, _Held] = {}
"""The same by where their memory begins; and those that are no longer given to anyone, but still in use."""


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies, whole or in part, in memory that several models may have: no one may write there."""
    if tensor.device.type == "meta" or not tensor.numel():
        return False
    with _lock:
        held = _addresses.get(tensor.untyped_storage().data_ptr())
        return held is not None and not held.gone


def shared_bytes() -> int:
    """Bytes of all tensors of bases that models share now, on all devices."""
    with _lock:
        found = [held.tensor() for held in _tensors.values()]
    return sum(tensor.nbytes for tensor in found if tensor is not None)


class SharedBase(Checkpoint):
    """A base's files with those of its tensors that models share: their words are read from that memory.

    `reused` says whether some of them were there before: what lies in memory anyone may have changed since.
    """

    def __init__(self, files: Checkpoint, of_files: str) -> None:
        super().__init__(files.source, files.path)
        self.layout, self.folder = files.layout, files.folder
        self.notes, self.left_out, self.ties = files.notes, files.left_out, files.ties
        self.reused = False
        self._checkpoint, self._fingerprint = files, of_files
        self._held: dict[str, torch.Tensor] = {}

    @classmethod
    def of(cls, files: Checkpoint, threads: int | None = None) -> Self:
        """The shared base of a checkpoint of files, which are hashed unless they were before and are the same since.

        Raises `CheckpointError` if they cannot be read, or change while they are read.
        """
        stamp: _Files = tuple((str(Path(path).absolute()), signature(path)) for path in files.files)
        with _lock:
            found = _fingerprints.get(stamp)
            _drop_gone(_tensors)
            _drop_gone(_addresses)
        if found is None:
            with Inputs(files.files).unchanged():
                found = fingerprint(files, threads=threads)
            with _lock:
                _fingerprints[stamp] = found
        return cls(files, found)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._checkpoint.tensors

    @property
    def files(self) -> list[Path]:
        """The files of the base."""
        return self._checkpoint.files

    def words(self, name: str) -> Words:
        """A tensor's words: of the memory that is shared, if this one is in use, else of the files."""
        held = self._held.get(name)
        return self._checkpoint.words(name) if held is None else tensor_words(held, name)[1]

    def word_source(self, name: str) -> WordSource:
        """The same, to be read part by part."""
        return self.words(name) if name in self._held else self._checkpoint.word_source(name)

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor in memory that all models of this base share; held by this object, too.

        Raises as `Checkpoint.words` does, `UnsupportedCheckpointError` for a dtype that torch lacks.
        """
        if name not in self._held:
            with _lock:
                known = self._known(name, torch.device("cpu"))
                self.reused |= known is not None
                self._held[name] = self._read(name) if known is None else known
        return self._held[name]

    def names_by_address(self) -> dict[int, str]:
        """Where the shared tensors that this object holds begin in memory, with their names."""
        return {tensor.data_ptr(): name for name, tensor in self._held.items() if tensor.numel()}

    def on_device(self, name: str, device: torch.device) -> torch.Tensor:
        """The same tensor in memory of another device, shared by all models there."""
        with _lock:
            known = self._known(name, device)
            return self._remember(name, self.tensor(name).to(device)) if known is None else known

    def forget(self) -> None:
        """Share what lies in memory now with no further model: the files tell what is right.

        Models that have it keep it, and it still counts as shared.
        """
        with _lock:
            for key in [key for key in _tensors if key[0] == self._fingerprint]:
                del _tensors[key]
        self._held.clear()
        self.reused = False

    def _read(self, name: str) -> torch.Tensor:
        words = np.array(self._checkpoint.words(name))
        return self._remember(name, as_tensor(words, self.info(name), name))

    def _known(self, name: str, device: torch.device) -> torch.Tensor | None:
        held = _tensors.get((self._fingerprint, name, str(device)))
        return None if held is None else held.tensor()

    def _remember(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel():
            held = _Held.of(tensor)
            _tensors[self._fingerprint, name, str(tensor.device)] = held
            _addresses[tensor.untyped_storage().data_ptr()] = held
        return tensor


def _drop_gone(known: dict[Any, _Held]) -> None:
    for key in [key for key, held in known.items() if held.gone]:
        del known[key]

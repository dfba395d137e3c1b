"""A tensor as a `torch.save` file describes it: which bytes of which storage, checked before any of them is read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from diffpack.checkpoints.torch_dtypes import FROM_TORCH, element_bytes, our_shape
from diffpack.checkpoints.weights_file import FileWords, WeightsFile
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.format import limits
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource


@dataclass(slots=True)
class Storage:
    """The memory of tensors in `file`: `claimed` entries of `dtype` (torch's name), so says the pickle.

    Its record has `nbytes` at `offset`, which are known once the file is read; `swapped` if they are big-endian.
    """

    file: WeightsFile
    key: str
    dtype: str
    claimed: int
    offset: int = 0
    nbytes: int = 0
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`shape` entries of a storage, from entry `first` with `strides`, of `dtype` (torch's name).

    `storage` is None for what is no plain array, and `dtype` says its kind. `conjugated` and `negated` are the flags of
    torch's lazy views. Nothing is true of the file before `check` has passed.
    """

    storage: Storage | None
    dtype: str
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False

    def check(self, where: str) -> TensorInfo:
        """Dtype and shape, if all entries lie in the bytes that the file has for them.

        Raises, calling the tensor `where`, `UnsupportedCheckpointError` for what is no plain array of a dtype of ours,
        `CheckpointError` for a storage whose record is too short, and for entries outside of it or more than it has.
        """
        storage, name = self.storage, FROM_TORCH.get(self.dtype)
        flips = self.negated and name is not None and not DTYPES[name].signed_magnitude
        if storage is None or name is None or flips or (self.conjugated and name != "C64"):
            raise UnsupportedCheckpointError(f"{where}: {self.dtype} tensors are not supported")
        if len(self.shape) > limits.DIMENSIONS:
            raise CheckpointError(f"{where}: {len(self.shape)} dimensions: more than a diff can hold")
        info = TensorInfo(DTYPES[name], our_shape(name, self.shape))
        claimed = storage.claimed * element_bytes(storage.dtype)
        if storage.nbytes < claimed:
            raise CheckpointError(
                f"{where}: damaged: {storage.nbytes} bytes in the file, where its storage {storage.key!r} has {claimed}"
            )
        entries, held = prod(self.shape), claimed // element_bytes(self.dtype)
        if entries > held:
            raise CheckpointError(
                f"{where}: {entries} entries over a storage of {held}: expanded tensors are not read, save its clone()"
            )
        last = self.first + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if entries and last >= held:
            raise CheckpointError(f"{where}: damaged: it reaches out of its storage {storage.key!r}")
        return info

    def words(self, info: TensorInfo) -> Words:
        """Its words, read-only: as `WeightsFile.words` gives them if they lie in one piece, else in new memory.

        `info` is what `check` gave. Raises `CheckpointError` if they cannot be read.
        """
        assert self.storage is not None
        if self._in_one_piece:
            return self.storage.file.words(self._offset, info.words, info.dtype.word)
        return self._gathered(info)

    def word_source(self, info: TensorInfo) -> WordSource:
        """Its words, read from the file part by part if they lie in one piece, else in new memory."""
        assert self.storage is not None
        if self._in_one_piece:
            return FileWords(self.storage.file, self._offset, info.words, info.dtype.word)
        return self._gathered(info)

    @property
    def place(self) -> tuple[object, ...] | None:
        """What two tensors have in common if they are one; None for a tensor without entries."""
        if self.storage is None or not prod(self.shape):
            return None
        return self.storage.key, self.dtype, self.first, self.shape, self.strides, self.conjugated, self.negated

    @property
    def _offset(self) -> int:
        assert self.storage is not None
        return self.storage.offset + self.first * element_bytes(self.dtype)

    @property
    def _in_one_piece(self) -> bool:
        assert self.storage is not None
        step = 1
        plain = not (self.conjugated or self.negated or (self.storage.swapped and element_bytes(self.dtype) > 1))
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            plain = plain and (n == 1 or stride == step)
            step *= n
        return plain or not step

    def _gathered(self, info: TensorInfo) -> Words:
        """Read the stretch of the storage that holds the entries, and put them in order."""
        assert self.storage is not None
        width = element_bytes(self.dtype)
        entry = np.dtype(f"<u{width}")
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        stretch = self.storage.file.read_words(self._offset, last + 1, entry)
        steps = tuple(step * width for step in self.strides)
        entries = np.ndarray(self.shape, entry, stretch.data, 0, steps)
        words = np.array(entries, order="C").reshape(-1).view(info.dtype.word)  # a copy of its own
        if self.storage.swapped:
            words.byteswap(inplace=True)
        sign = words.dtype.type(1 << (8 * words.itemsize - 1))
        if self.negated:
            words ^= sign
        if self.conjugated:  # the imaginary parts
            words[1::2] ^= sign
        words.flags.writeable = False
        return words

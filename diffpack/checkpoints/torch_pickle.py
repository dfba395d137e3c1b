"""PyTorch checkpoints: `.bin`, `.pt` and `.pth` files, alone or as shards with an index.

Only weights are unpickled, never code. torch is imported when the first checkpoint is opened, not before.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from diffpack.atomic import atomic_file
from diffpack.checkpoints.base import Checkpoint, TensorInfo
from diffpack.checkpoints.safetensors_file import read_index
from diffpack.checkpoints.writer import CheckpointWriter
from diffpack.dtypes import DTYPES, Words
from diffpack.errors import CheckpointError, MissingDependencyError, UnsupportedCheckpointError
from diffpack.names import is_plain_file_name, printable

if TYPE_CHECKING:
    import torch

_TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}  # fmt: skip
_FROM_TORCH = {f"torch.{value}": key for key, value in _TORCH.items()}
_INTEGERS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}  # torch copies these by their bits, any strides
_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
)  # fmt: skip
_ZIP = b"PK\x03\x04"  # torch.save's own format since 1.6; the legacy one cannot be memory-mapped
_NAMED = 5  # names in a note before it says "and N more"


def tensor_words(tensor: torch.Tensor, name: str = "tensor") -> tuple[TensorInfo, Words]:
    """Give what is known of a torch tensor, on any device and of any strides, and its read-only words.

    The words share the memory of a contiguous CPU tensor. An F4 tensor's last dimension counts entries, as in
    safetensors, where torch counts bytes. Raises `UnsupportedCheckpointError`, calling the tensor `name`.
    """
    info = _info(tensor, name)
    plain = tensor.detach().resolve_conj().resolve_neg()
    integers = plain.view(getattr(_torch(), _INTEGERS[plain.element_size()]))
    words = integers.cpu().contiguous().numpy().reshape(-1).view(info.dtype.word)
    words.flags.writeable = False
    return info, words


def to_torch(words: Words, info: TensorInfo, name: str = "tensor") -> torch.Tensor:
    """Copy words into a new, writable CPU tensor.

    Raises `UnsupportedCheckpointError`, calling the tensor `name`, if torch lacks the dtype.
    """
    return _over(np.array(words), info, name)


class TorchCheckpoint(Checkpoint):
    """One file written by `torch.save`, memory-mapped unless it has the legacy format.

    The tensors are those of the dict that is reached through keys such as `state_dict` or `model`, else of
    the outermost dict, in its order; `notes` says which dict that was and what was skipped. Tied tensors
    appear under each of their names. Raises `CheckpointError` for a file that is damaged or holds more than
    weights, `UnsupportedCheckpointError` for a tensor that is not a plain array.
    """

    layout = "torch"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path)
        found = self._state_dict(_load(path))
        self._held = {key: value for key, value in found.items() if _is_tensor(value)}
        self._tensors = {key: _info(value, f"{path}: {key!r}") for key, value in self._held.items()}
        self._note_skipped("not tensors", (key for key in found if key not in self._held))

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the dict's order."""
        return self._tensors

    def words(self, name: str) -> Words:
        """Give a tensor's words, without a copy if it is contiguous.

        Raises `MissingTensorError`; `CheckpointError` after `close`, or if a copy does not fit in memory.
        """
        self.info(name)
        if name not in self._held:
            raise CheckpointError(f"{self.source}: {name!r} was asked for after close")
        try:
            return tensor_words(self._held[name], f"{self.source}: {name!r}")[1]
        except (RuntimeError, MemoryError) as error:  # torch reports a failed allocation as RuntimeError
            raise CheckpointError(f"{self.source}: {name!r} cannot be read: {_cause(error)}") from error

    def close(self) -> None:
        """Let go of the file; views handed out before stay valid."""
        self._held = {}

    def _state_dict(self, loaded: object) -> dict[str, Any]:
        trail = _trail(loaded, set())
        if trail is None:
            keys = f" with {_listed(loaded)}" if isinstance(loaded, dict) else ""
            what = f"{type(loaded).__name__}{keys}"
            raise CheckpointError(f"{self.source}: no dict of tensors found: it holds a {what}")
        found: Any = loaded
        outside: list[str] = []
        for key in trail:
            outside += [str(other) for other in found if other != key]
            found = found[key]
        for key, value in found.items():
            if not isinstance(key, str) and _is_tensor(value):
                raise UnsupportedCheckpointError(f"{self.source}: the tensor {key!r} is named by no string")
        if trail:
            self.notes.append(f"tensors found under {' > '.join(repr(key) for key in trail)}")
        self._note_skipped(f"outside {trail[-1]!r}" if trail else "", outside)
        return dict(found)

    def _note_skipped(self, why: str, keys: Iterable[object]) -> None:
        skipped = list(keys)
        if skipped:
            self.notes.append(f"skipped, {why}: {_listed(skipped)}")


class ShardedTorchCheckpoint(Checkpoint):
    """Several `torch.save` files and the index (`pytorch_model.bin.index.json`) that says which holds what.

    `path` is the index, which also sets the order; `homes` gives the shard of each tensor. Raises
    `CheckpointError` if the index is damaged, a shard is missing, or a tensor is not in the shard named for it.
    """

    layout = "torch-sharded"

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), path)
        _, self.homes = read_index(path)
        self._shards: dict[str, TorchCheckpoint] = {}
        for name, shard in self.homes.items():
            file = path.parent / shard
            if not file.is_file():
                raise CheckpointError(f"{path}: the shard {shard} does not exist; it should hold {name!r}")
            if shard not in self._shards:
                self._shards[shard] = TorchCheckpoint(file)
                self.notes += [f"{shard}: {note}" for note in self._shards[shard].notes]
            if name not in self._shards[shard].tensors:
                raise CheckpointError(f"{path}: the shard {shard} should hold {name!r} but does not")
        self._tensors = {name: self._shards[shard].tensors[name] for name, shard in self.homes.items()}
        for shard, opened in self._shards.items():
            unlisted = [name for name in opened.tensors if self.homes.get(name) != shard]
            if unlisted:
                self.notes.append(f"{shard}: skipped, not in the index: {_listed(unlisted)}")

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the index's order."""
        return self._tensors

    @property
    def files(self) -> list[Path]:
        """The index and its shards."""
        return super().files + [opened.files[0] for opened in self._shards.values()]

    def words(self, name: str) -> Words:
        """Give a tensor's words; raises as `TorchCheckpoint.words`."""
        self.info(name)
        return self._shards[self.homes[name]].words(name)

    def close(self) -> None:
        """Let go of all shards; views handed out before stay valid."""
        for opened in self._shards.values():
            opened.close()


class TorchWriter(CheckpointWriter):
    """Gather tensors in memory and `torch.save` them as a flat dict, in the order of `tensors`.

    Raises `CheckpointError` for a dtype torch lacks, at once, and on publishing for tensors not filled or a
    file that cannot be written.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self._path = path
        self._gathered = _Gathered(path, tensors)

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Copy a piece of a tensor; see `CheckpointWriter.write`."""
        self._gathered.add(name, offset, data)

    def publish(self) -> None:
        """Write the file, whole or not at all."""
        tensors = self._gathered.take()
        with _writing(self._path), atomic_file(self._path) as file:
            _torch().save(tensors, file)

    def discard(self) -> None:
        """Let go of the memory; nothing was written."""
        self._gathered.drop()


class ShardedTorchWriter(CheckpointWriter):
    """Write shards and their index into `folder`, which exists and is the caller's to publish.

    `shards` names the tensors of each file; a shard is saved, and its memory freed, once it is full. Raises
    `CheckpointError` for a dtype torch lacks, a shard's name that is a path, or a tensor not in one shard.
    """

    def __init__(
        self,
        folder: Path,
        shards: Mapping[str, Sequence[str]],
        tensors: Mapping[str, TensorInfo],
        index_name: str = "pytorch_model.bin.index.json",
    ) -> None:
        self._folder = folder
        self._index = folder / index_name
        self._tensors = tensors
        self._where = {name: shard for shard, names in shards.items() for name in names}
        for shard in shards:  # their names come from an index that may come from anywhere
            if not is_plain_file_name(shard) or shard == index_name:
                raise CheckpointError(f"{self._index}: the shard {shard!r} is not named as a file beside it")
        if sorted(tensors) != sorted(name for names in shards.values() for name in names):
            raise CheckpointError(f"{self._index}: the shards do not hold every tensor exactly once")
        self._gathered = {
            shard: _Gathered(folder / shard, {name: tensors[name] for name in names}) for shard, names in shards.items()
        }

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Copy a piece of a tensor and save the shard it fills; see `CheckpointWriter.write`."""
        gathered = self._gathered[self._where[name]]
        if gathered.add(name, offset, data):
            self._save(gathered)

    def publish(self) -> None:
        """Save the shards without bytes, then the index."""
        for gathered in self._gathered.values():
            if not gathered.taken:
                self._save(gathered)
        size = sum(info.nbytes for info in self._tensors.values())
        where = {name: self._where[name] for name in self._tensors}
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2)
        with _writing(self._index):
            self._index.write_text(text + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Remove the shards and the index."""
        self._index.unlink(missing_ok=True)
        for gathered in self._gathered.values():
            gathered.drop()
            gathered.path.unlink(missing_ok=True)

    @staticmethod
    def _save(gathered: _Gathered) -> None:
        tensors = gathered.take()
        with _writing(gathered.path), gathered.path.open("wb") as file:
            _torch().save(tensors, file)


class _Gathered:
    """The tensors of one file, in memory, as they fill."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self.path = path
        self._tensors = tensors
        for name, info in tensors.items():
            _torch_dtype(info, f"{path}: {name!r}")
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}
        self._missing = sum(info.nbytes for info in tensors.values())
        self._lock = threading.Lock()
        self.taken = False

    def add(self, name: str, offset: int, data: npt.NDArray[Any]) -> bool:
        """Copy a piece; True for the piece that fills the last tensor."""
        info = self._tensors[name]
        with self._lock:
            if name not in self._buffers:
                self._buffers[name] = np.empty(info.nbytes, np.uint8)
        self._buffers[name][offset : offset + data.nbytes] = data.view(np.uint8)
        with self._lock:
            self._missing -= data.nbytes
            return self._missing == 0

    def take(self) -> dict[str, torch.Tensor]:
        """Hand over all tensors; raises `CheckpointError` if bytes are missing."""
        if self._missing:
            raise CheckpointError(f"{self.path}: {self._missing} bytes of its tensors were never written")
        self.taken = True
        none = np.empty(0, np.uint8)
        return {
            name: _over(self._buffers.pop(name, none).view(info.dtype.word), info, name)
            for name, info in self._tensors.items()
        }

    def drop(self) -> None:
        """Let go of the memory."""
        self._buffers = {}


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "torch", "reading PyTorch checkpoints") from error
    return torch


def _is_tensor(value: object) -> bool:
    return isinstance(value, _torch().Tensor)


def _info(tensor: torch.Tensor, name: str) -> TensorInfo:
    kind = str(tensor.dtype)
    plain = tensor.layout == _torch().strided and not tensor.is_quantized and not tensor.is_nested
    if not plain or tensor.is_meta or kind not in _FROM_TORCH:
        found = "meta" if tensor.is_meta else f"{tensor.layout}".removeprefix("torch.")
        raise UnsupportedCheckpointError(f"{name}: {kind} tensors ({found}) are not supported")
    dtype = DTYPES[_FROM_TORCH[kind]]
    shape = tuple(tensor.shape)
    if dtype.name == "F4":
        shape = (*shape[:-1], 2 * shape[-1]) if shape else (2,)
    return TensorInfo(dtype, shape)


def _torch_dtype(info: TensorInfo, name: str) -> Any:
    dtype = getattr(_torch(), _TORCH.get(info.dtype.name, ""), None)
    if dtype is None or (info.dtype.name == "F4" and (not info.shape or info.shape[-1] % 2)):
        raise UnsupportedCheckpointError(f"{name}: PyTorch cannot hold {info}")
    return dtype


def _over(words: Words, info: TensorInfo, name: str) -> torch.Tensor:
    """View writable words as a tensor."""
    dtype = _torch_dtype(info, name)
    shape = (*info.shape[:-1], info.shape[-1] // 2) if info.dtype.name == "F4" else info.shape
    tensor: torch.Tensor
    if words.size:
        tensor = _torch().from_numpy(words.view(_INTEGERS[dtype.itemsize])).view(dtype).reshape(shape)
    else:  # without an address: torch refuses to save two dtypes at one
        tensor = _torch().empty(shape, dtype=dtype)
    return tensor


def _load(path: Path) -> Any:
    torch = _torch()
    try:
        with path.open("rb") as file:
            mapped = file.read(len(_ZIP)) == _ZIP
        with warnings.catch_warnings():  # about pickle protocols and storages: nothing a reader can act on
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # what a damaged pickle raises is anyone's guess
        hint = "only weights can be loaded, never code; save a plain dict of tensors"
        raise CheckpointError(f"{path}: not readable as PyTorch weights: {_cause(error)} ({hint})") from error


def _cause(error: BaseException | None) -> str:
    """Give one line of torch's message, which may be a page about trusting files."""
    text = str(error)
    told = re.search(r"(?:WeightsUnpickler error: |Trying to load )([^\n]*)", text)
    lines = (told[1] if told else text).split(". Please use")[0].strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _trail(value: object, seen: set[int]) -> tuple[str, ...] | None:
    """Find the wrapper keys that lead to a dict with tensors, or an empty one at the outermost level."""
    if not isinstance(value, dict) or id(value) in seen:  # a pickle may contain itself
        return None
    seen.add(id(value))
    for key in _WRAPPERS:
        nested = value.get(key)
        inner = _trail(nested, seen) if isinstance(nested, dict) and nested else None
        if inner is not None:
            return (key, *inner)
    return () if not value or any(_is_tensor(item) for item in value.values()) else None


def _listed(keys: Any) -> str:
    names = [printable(str(key)) for key in keys]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        hidden = isinstance(error, RuntimeError) and isinstance(error.__context__, OSError)  # torch does that
        cause = error.__context__ if hidden else error
        raise CheckpointError(f"{path}: cannot be written: {_cause(cause)}") from error

"""PyTorch checkpoints: `.bin`, `.pt`, `.pth` and `.ckpt` files, alone or as shards with an index, to read.

Only weights are unpickled, never code. torch is imported when the first checkpoint is opened, not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.safetensors_header import read_index
from diffpack.checkpoints.torch_tensors import import_torch, tensor_info, tensor_words, torch_cause
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo

_WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
)  # fmt: skip
_ZIP = b"PK\x03\x04"  # torch.save's own format since 1.6; the legacy one cannot be memory-mapped


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
        state = self._state_dict(_load(path))
        self._held = {key: value for key, value in state.items() if _is_tensor(value)}
        self._tensors = {key: tensor_info(value, f"{path}: {key!r}") for key, value in self._held.items()}
        self._note_skipped("not tensors", (key for key in state if key not in self._held))

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the dict's order."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words, without a copy if it is contiguous.

        Raises `MissingTensorError`; `CheckpointError` after `close`, or if a copy does not fit in memory.
        """
        self.info(name)
        if name not in self._held:
            raise CheckpointError(f"{self.source}: {name!r} was asked for after close")
        try:
            return tensor_words(self._held[name], f"{self.source}: {name!r}")[1]
        except (RuntimeError, MemoryError) as error:  # torch reports a failed allocation as RuntimeError
            raise CheckpointError(f"{self.source}: {name!r} cannot be read: {torch_cause(error)}") from error

    def close(self) -> None:
        """Let go of the file; views handed out before stay valid."""
        self._held = {}

    def _state_dict(self, loaded: object) -> dict[str, Any]:
        trail = _trail(loaded, set())
        if trail is None:
            keys = f" with {_named(loaded)}" if isinstance(loaded, dict) else ""
            what = f"{type(loaded).__name__}{keys}"
            raise CheckpointError(f"{self.source}: no dict of tensors found: it holds a {what}")
        state: Any = loaded
        outside: list[str] = []
        for key in trail:
            outside += [str(other) for other in state if other != key]
            state = state[key]
        for key, value in state.items():
            if not isinstance(key, str) and _is_tensor(value):
                raise UnsupportedCheckpointError(f"{self.source}: the tensor {key!r} is named by no string")
        if trail:
            self.notes.append(f"tensors found under {' > '.join(repr(key) for key in trail)}")
        self._note_skipped(f"outside {trail[-1]!r}" if trail else "", outside)
        return dict(state)

    def _note_skipped(self, why: str, keys: Iterable[object]) -> None:
        skipped = list(keys)
        if skipped:
            self.notes.append(f"skipped, {why}: {_named(skipped)}")


class ShardedTorchCheckpoint(Checkpoint):
    """Several `torch.save` files and the index (`pytorch_model.bin.index.json`) that says which holds what.

    `path` is the index, which also sets the order; `homes` gives the shard of each tensor. Raises
    `CheckpointError` if the index is damaged, a shard is missing, a tensor is not in the shard named for it, or in two.
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
        unlisted = []
        for shard, opened in self._shards.items():
            for name in opened.tensors:
                if self.homes.get(name, shard) != shard:
                    raise CheckpointError(f"{path}: tensor {name!r} stands in two shards")
                unlisted += [name] if name not in self.homes else []
                self.homes[name] = shard
        if unlisted:
            self.notes.append(f"not in the index, and taken as well: {_named(sorted(unlisted))}")
        self._tensors = {name: self._shards[shard].tensors[name] for name, shard in self.homes.items()}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the index's order."""
        return self._tensors

    @property
    def files(self) -> list[Path]:
        """The index and its shards."""
        return super().files + [opened.files[0] for opened in self._shards.values()]

    def words(self, name: str) -> Words:
        """A tensor's words; raises as `TorchCheckpoint.words`."""
        self.info(name)
        return self._shards[self.homes[name]].words(name)

    def close(self) -> None:
        """Let go of all shards; views handed out before stay valid."""
        for opened in self._shards.values():
            opened.close()


def _is_tensor(value: object) -> bool:
    return isinstance(value, import_torch().Tensor)


def _load(path: Path) -> Any:
    torch = import_torch()
    try:
        with path.open("rb") as file:
            mapped = file.read(len(_ZIP)) == _ZIP
        with warnings.catch_warnings():  # about pickle protocols and storages: nothing a reader can act on
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # what a damaged pickle raises is anyone's guess
        hint = "only weights can be loaded, never code; save a plain dict of tensors"
        raise CheckpointError(f"{path}: not readable as PyTorch weights: {torch_cause(error)} ({hint})") from error


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


def _named(keys: Iterable[Any]) -> str:
    return listed([printable(str(key)) for key in keys])

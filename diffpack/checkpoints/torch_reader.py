"""PyTorch checkpoints: `.bin`, `.pt`, `.pth` and `.ckpt` files, alone or as shards with an index, to read.

Only weights are unpickled, never code; torch is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.claims import refuse_claims
from diffpack.checkpoints.safetensors_header import read_index
from diffpack.checkpoints.shards import sort_into_shards
from diffpack.checkpoints.torch_archive import load_torch
from diffpack.checkpoints.torch_names import named_tensors
from diffpack.checkpoints.weights_file import WeightsFile
from diffpack.errors import AGAIN, CheckpointError
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource


class TorchCheckpoint(Checkpoint):
    """One file written by `torch.save`; with `mmap` false it is never mapped.

    All its tensors are taken but the state of training, which `left_out` names beside what is no tensor. What they are
    called is told by `named_tensors`, where they were found by `notes`. Tied tensors appear under each of their names,
    and in `ties`. Raises `CheckpointError` for a file that is damaged or holds more than weights,
    `UnsupportedCheckpointError` for a tensor that is not a plain array.
    """

    layout = "torch"

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        super().__init__(str(path), path)
        self._file = WeightsFile(path, self.notes, mmap=mmap)
        named = named_tensors(load_torch(self._file), self.source)
        self.notes += named.notes
        self.left_out += named.left_out
        self._stored = named.tensors
        self._tensors = {name: stored.check(f"{path}: {name!r}") for name, stored in self._stored.items()}
        refuse_claims(self._tensors, self._file.size, self.source)
        places: dict[object, str] = {}
        for name, stored in self._stored.items():
            if stored.place is not None and (first := places.setdefault(stored.place, name)) != name:
                self.ties[name] = first

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the file's order."""
        return self._tensors

    def words(self, name: str) -> Words:
        """A tensor's words, without a copy if they lie in one piece.

        Raises `MissingTensorError`; `CheckpointError` after `close`, or if they cannot be read.
        """
        info = self.info(name)
        return self._stored[name].words(info)

    def word_source(self, name: str) -> WordSource:
        """A tensor's words, read from the file part by part if they lie in one piece; raises as `words` does."""
        info = self.info(name)
        return self._stored[name].word_source(info)

    def close(self) -> None:
        """Close the file; arrays handed out before stay valid."""
        self._file.close()


class ShardedTorchCheckpoint(Checkpoint):
    """Several `torch.save` files and the index (`pytorch_model.bin.index.json`) that says which holds what.

    `path` is the index, which also sets the order; `homes` gives the shard of each tensor: where it stands in two, the
    one that the index names. Raises `CheckpointError` if the index is damaged, a shard is missing, a tensor is not in
    the shard named for it, or in two and not in the index.
    """

    layout = "torch-sharded"

    def __init__(self, path: Path, *, mmap: bool = True) -> None:
        super().__init__(str(path), path)
        _, weight_map = read_index(path)
        self._shards: dict[str, TorchCheckpoint] = {}
        for name, shard in weight_map.items():
            if not (path.parent / shard).is_file():
                raise CheckpointError(f"{path}: the shard {shard} does not exist; it should hold {name!r}: {AGAIN}")
            if shard not in self._shards:
                self._shards[shard] = TorchCheckpoint(path.parent / shard, mmap=mmap)
        contents = {shard: opened.tensors for shard, opened in self._shards.items()}
        self.homes, notes = sort_into_shards(weight_map, contents, str(path))
        for shard, opened in self._shards.items():
            self.notes += [f"{shard}: {note}" for note in opened.notes]
            self.left_out += [item for item in opened.left_out if item not in self.left_out]
            own = {name: first for name, first in opened.ties.items() if self.homes[name] == self.homes[first] == shard}
            self.ties |= own
        self.notes += notes
        self._tensors = {name: contents[shard][name] for name, shard in self.homes.items()}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the index's order."""
        return self._tensors

    @property
    def files(self) -> list[Path]:
        """The index and its shards."""
        return super().files + [path for opened in self._shards.values() for path in opened.files]

    def words(self, name: str) -> Words:
        """A tensor's words; raises as `TorchCheckpoint.words`."""
        self.info(name)
        return self._shards[self.homes[name]].words(name)

    def word_source(self, name: str) -> WordSource:
        """A tensor's words, part by part; raises as `TorchCheckpoint.words`."""
        self.info(name)
        return self._shards[self.homes[name]].word_source(name)

    def close(self) -> None:
        """Close all shards; arrays handed out before stay valid."""
        for opened in self._shards.values():
            opened.close()

"""Where a result is written: which files, in which layout, with which side files beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from diffpack.checkpoints import HDF5_SUFFIXES, TORCH_SUFFIXES, Checkpoint
from diffpack.checkpoints.base import CheckpointWriter
from diffpack.checkpoints.safetensors_header import make_header, make_index
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint, ShardedSafetensorsCheckpoint
from diffpack.checkpoints.safetensors_writer import SafetensorsWriter
from diffpack.diff.layout import Headers, Index, recorded_layout
from diffpack.diff.sidefiles import side_contents
from diffpack.errors import UsageError
from diffpack.result.result import Result
from diffpack.support.atomic import AtomicStack, atomic_folder

_FOREIGN_SUFFIXES = frozenset({".dpk", ".gguf", ".gz", ".msgpack", ".npy", ".npz", ".onnx", ".pkl", ".tar", ".zip"})
"""Endings that name a file of a kind we do not write, even where a folder may have a dot in its name."""


def open_output(path: Path, result: Result, *, files: bool = True) -> CheckpointWriter:
    """Open a writer for the result: by the ending of `path`, else a folder laid out as the tuned or the base is.

    Raises `UsageError` if `path` does not tell a layout, `WrongBaseError` if the base's folder lacks a side file,
    `CorruptFileError` if the stored layout does not fit the result.
    """
    name = path.name.lower()
    if name.endswith(TORCH_SUFFIXES):
        from diffpack.checkpoints.torch_writer import TorchWriter

        return TorchWriter(path, result.tensors)
    if name.endswith(HDF5_SUFFIXES):
        from diffpack.checkpoints.hdf5_writer import Hdf5Writer

        template = result.base.path if result.base.layout == "hdf5" else None
        return Hdf5Writer(path, result.tensors, template)
    recorded = recorded_layout(result.diff, result.base, result.tensors)
    if name.endswith(".safetensors"):
        headers = recorded[0] if recorded is not None else []
        raw = headers[0][1] if len(headers) == 1 else make_header(result.tensors, _metadata(result.base))
        return SafetensorsWriter([(path, raw)])
    foreign = path.suffix.lower() in _FOREIGN_SUFFIXES
    if foreign or (path.suffix and not path.is_dir() and result.base.folder is None):
        raise UsageError(f"{path}: cannot tell a layout from its ending; use .safetensors, .bin, .pt, .h5 or a folder")
    return FolderWriter(path, result, recorded, files)


class FolderWriter(CheckpointWriter):
    """Writes a model folder: weights and side files into a temporary sibling that is renamed at the end."""

    def __init__(self, path: Path, result: Result, recorded: tuple[Headers, Index] | None, files: bool) -> None:
        contents = side_contents(result.diff, result.base) if files else {}
        self._stack = AtomicStack()
        try:
            self._folder = self._stack.enter_context(atomic_folder(path))
            for name, content in contents.items():
                (self._folder / name).write_bytes(content)
            self._writer = self._open_weights(result, recorded)
        except BaseException:
            self._stack.discard()
            raise

    def _open_weights(self, result: Result, recorded: tuple[Headers, Index] | None) -> CheckpointWriter:
        base, folder = result.base, self._folder
        if recorded is None and base.layout == "hdf5" and base.path is not None:
            from diffpack.checkpoints.hdf5_writer import Hdf5Writer

            return Hdf5Writer(folder / base.path.name, result.tensors, base.path)
        if recorded is None and base.layout in ("torch", "torch-sharded") and base.path is not None:
            return _open_torch(folder, result)
        headers, index = recorded if recorded is not None else _base_headers(result)
        targets = [(folder / (name or "model.safetensors"), raw) for name, raw in headers]
        return SafetensorsWriter(targets, [(folder / index[0], index[1])] if index else [])

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Hand the words to the weights' writer."""
        self._writer.write(name, offset, data)

    def publish(self) -> None:
        """Finish the weights, then rename the folder."""
        try:
            self._writer.publish()
        except BaseException:
            self._stack.discard()
            raise
        self._stack.close()

    def discard(self) -> None:
        """Remove the temporary folder."""
        self._writer.discard()
        self._stack.discard()


def _metadata(base: Checkpoint) -> Mapping[str, str]:
    if isinstance(base, SafetensorsCheckpoint):
        return base.header.metadata
    return {"format": "pt"}  # what the transformers library expects to find


def _base_headers(result: Result) -> tuple[Headers, Index]:
    """Lay the result out as the base is: the same shards, new tensors in the last one."""
    base = result.base
    if isinstance(base, ShardedSafetensorsCheckpoint):
        homes = {name: shard for shard, part in base.shards.items() for name in part.tensors}
        shards = {
            shard: {name: result.tensors[name] for name in names} for shard, names in _shards(result, homes).items()
        }
        headers = [(shard, make_header(part, base.shards[shard].header.metadata)) for shard, part in shards.items()]
        assert base.path is not None
        return headers, (base.path.name, make_index(shards))
    weights = base.path.name if base.layout == "safetensors" and base.path is not None else "model.safetensors"
    return [(weights, make_header(result.tensors, _metadata(base)))], None


def _open_torch(folder: Path, result: Result) -> CheckpointWriter:
    from diffpack.checkpoints.torch_reader import ShardedTorchCheckpoint
    from diffpack.checkpoints.torch_writer import ShardedTorchWriter, TorchWriter

    base = result.base
    assert base.path is not None
    if isinstance(base, ShardedTorchCheckpoint):
        return ShardedTorchWriter(folder, _shards(result, base.homes), result.tensors, base.path.name)
    return TorchWriter(folder / base.path.name, result.tensors)


def _shards(result: Result, homes: Mapping[str, str]) -> dict[str, list[str]]:
    """Sort the result's tensors into the base's shards (`homes`: base tensor -> shard); new ones into the last."""
    order = sorted(set(homes.values()))
    own = result.view.own
    shards: dict[str, list[str]] = {shard: [] for shard in order}
    for name in result.tensors:
        shards[homes.get(own.get(name, ""), order[-1])].append(name)
    return {shard: names for shard, names in shards.items() if names}

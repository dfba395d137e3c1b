"""Where a result is written: which files, in which layout, with which side files beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from blake3 import blake3

from diffpack import layout as layouts
from diffpack.atomic import AtomicStack, atomic_folder
from diffpack.checkpoints import HDF5_SUFFIXES, TORCH_SUFFIXES, Checkpoint, TensorInfo
from diffpack.checkpoints.folder import MOST_SIDE_FILE_BYTES, side_files
from diffpack.checkpoints.safetensors_file import (
    SafetensorsCheckpoint,
    SafetensorsWriter,
    ShardedSafetensorsCheckpoint,
    make_header,
    make_index,
    parse_header,
)
from diffpack.checkpoints.writer import CheckpointWriter
from diffpack.diff import Diff
from diffpack.errors import CheckpointError, CorruptFileError, UsageError, WrongBaseError
from diffpack.fingerprint import DIGEST_BYTES
from diffpack.manifest import Layout
from diffpack.result import Result

Headers = list[tuple[str, bytes]]
Index = tuple[str, bytes] | None

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
    recorded = _recorded_layout(result)
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
        contents = _side_contents(result) if files else {}
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


def _recorded_layout(result: Result) -> tuple[Headers, Index] | None:
    """Give the tuned files' headers and index, from the diff or from the base; None if neither has them."""
    layout = result.diff.manifest.layout
    if layout is None:
        return None
    if layout.stored:
        blob = stored_blob(result.diff, layout)
    else:
        of_base = layouts.describe(result.base)
        if of_base is None or of_base[0].digest != layout.digest:
            result.base.notes.append(
                "the diff expects the layout of its base's own files, which these are not: every tensor is exact, "
                "the order and metadata in the result's files are not the tuned ones"
            )
            return None
        blob = of_base[1]
    where = f"{result.diff.name}: layout"
    headers, index = layouts.split_blob(layout, blob)
    check_headers(headers, result.tensors, where)
    return headers, index


def stored_blob(diff: Diff, layout: Layout) -> bytes:
    """Give the stored layout's blob, checked. Raises `CorruptFileError` (L2)."""
    blob = diff.blob("")
    expected = sum(size for _, size in layout.files) + (layout.index[1] if layout.index else 0)
    if len(blob) != expected or blake3(blob).digest()[:DIGEST_BYTES].hex() != layout.digest:
        raise CorruptFileError(f"{diff.name}: layout: damaged", "L2")
    return blob


def check_headers(headers: Headers, tensors: Mapping[str, TensorInfo], where: str) -> None:
    """Check that headers describe just these tensors, each once. Raises `CorruptFileError` (L2)."""
    found: dict[str, TensorInfo] = {}
    count = 0
    for name, raw in headers:
        try:
            header = parse_header(raw, f"{where} {name}".rstrip())
        except CheckpointError as error:
            raise CorruptFileError(str(error), "L2") from None
        found |= header.tensors
        count += len(header.tensors)
    if count != len(found) or found != dict(tensors):
        raise CorruptFileError(f"{where}: its tensors are not those of the result", "L2")


def _metadata(base: Checkpoint) -> Mapping[str, str]:
    if isinstance(base, SafetensorsCheckpoint):
        return base.header.metadata
    return {"format": "pt"}  # what the transformers library expects to find


def _base_headers(result: Result) -> tuple[Headers, Index]:
    """Lay the result out as the base is: the same shards, new tensors in the last one."""
    base = result.base
    if isinstance(base, ShardedSafetensorsCheckpoint):
        homes = {name: shard for shard, part in base.shards.items() for name in part.tensors}
        shards: dict[str, dict[str, TensorInfo]] = {shard: {} for shard in base.shards}
        last = list(shards)[-1]
        own = result.own_names()
        for name, info in result.tensors.items():
            shards[homes.get(own.get(name, ""), last)][name] = info
        headers = [
            (shard, make_header(part, base.shards[shard].header.metadata)) for shard, part in shards.items() if part
        ]
        assert base.path is not None
        return headers, (base.path.name, make_index(shards))
    weights = base.path.name if base.layout == "safetensors" and base.path is not None else "model.safetensors"
    return [(weights, make_header(result.tensors, _metadata(base)))], None


def _open_torch(folder: Path, result: Result) -> CheckpointWriter:
    from diffpack.checkpoints.torch_pickle import ShardedTorchCheckpoint
    from diffpack.checkpoints.torch_writer import ShardedTorchWriter, TorchWriter

    base = result.base
    assert base.path is not None
    if isinstance(base, ShardedTorchCheckpoint):
        own = result.own_names()
        shards: dict[str, list[str]] = {}
        homes = base.homes
        last = sorted(set(homes.values()))[-1]
        for name in result.tensors:
            shards.setdefault(homes.get(own.get(name, ""), last), []).append(name)
        return ShardedTorchWriter(folder, shards, result.tensors, base.path.name)
    return TorchWriter(folder / base.path.name, result.tensors)


def _side_contents(result: Result) -> dict[str, bytes]:
    """Give the side files of the result: those the diff stores, and the base's it expects, all checked."""
    diff, folder = result.diff, result.base.folder
    if not diff.manifest.files:
        found, _ = side_files(folder) if folder is not None else ({}, [])
        return {name: path.read_bytes() for name, path in found.items()}
    contents = {}
    for item in diff.manifest.files:
        if item.stored:
            content = side_content(diff, item.name)
        elif folder is None:
            result.base.notes.append(f"{item.name} is expected beside the base, which is no folder: left out")
            continue
        else:
            path = folder / item.name
            content = path.read_bytes() if path.is_file() and path.stat().st_size <= MOST_SIDE_FILE_BYTES else b""
            if len(content) != item.bytes or blake3(content).digest()[:DIGEST_BYTES].hex() != item.digest:
                raise WrongBaseError(
                    f"{path}: missing, or not the file {diff.name} was made with; --no-files leaves such files out [L3]"
                )
        contents[item.name] = content
    return contents


def side_content(diff: Diff, name: str) -> bytes:
    """Give a stored side file, checked. Raises `CorruptFileError` (L3)."""
    item = next(item for item in diff.manifest.files if item.name == name)
    content = diff.blob(name)
    if len(content) != item.bytes or blake3(content).digest()[:DIGEST_BYTES].hex() != item.digest:
        raise CorruptFileError(f"{diff.name}: the side file {name}: damaged", "L3")
    return content

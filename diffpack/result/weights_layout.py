"""How the weights of a folder are laid out: as the tuned files were, where that is known, else as the base's are."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy.typing as npt

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import CheckpointWriter, Place
from diffpack.checkpoints.endings import layout_of
from diffpack.checkpoints.folder_checkpoint import FolderCheckpoint
from diffpack.checkpoints.safetensors_header import make_header, make_index
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint, ShardedSafetensorsCheckpoint
from diffpack.checkpoints.safetensors_writer import ShardedSafetensorsWriter
from diffpack.diff.layout import Headers, Index
from diffpack.diff.structure import recorded_structure
from diffpack.errors import CheckpointError
from diffpack.format.hdf5_structure import FileStructure
from diffpack.result.result import Result
from diffpack.support.names import listed
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo

_NO_STRUCTURE = "attributes and all else that an HDF5 file has beside its tensors"
_BASE_STRUCTURE = f"{_NO_STRUCTURE} (those of the base stand there)"


def open_weights(
    folder: Path, result: Result, recorded: tuple[Headers, Index] | None, sha256: Sequence[str]
) -> CheckpointWriter:
    """Open the weights of a folder: laid out as the tuned files were, where that is known, else as the base is.

    `sha256` are the digests of the recorded files, then of the index; none if they are not to be checked.
    """
    if recorded is None:
        if result.base.layout in ("hdf5", "keras"):
            from diffpack.checkpoints.hdf5_writer import Hdf5Writer

            name = _name_like(result.base, "hdf5", "model.weights.h5")
            return Hdf5Writer(folder / name, result.tensors, structure(result))
        return _open_like(result.base, folder, _Contents(result.tensors, result.view.own, result.ties))
    headers, index = recorded
    named = [*headers, *([index] if index else [])]
    sums = {folder / (name or "model.safetensors"): digest for (name, _), digest in zip(named, sha256, strict=False)}
    folders: dict[str, list[tuple[Path, bytes]]] = {}
    for name, raw in headers:
        folders.setdefault(name.rpartition("/")[0], []).append((folder / (name or "model.safetensors"), raw))
    with _opened_parts() as parts:
        for path, targets in folders.items():
            (folder / path).mkdir(parents=True, exist_ok=True)
            extra = [(folder / index[0], index[1])] if index and not path else []
            expected = {file: sums[file] for file, _ in [*targets, *extra] if file in sums}
            writer = ShardedSafetensorsWriter(targets, extra, expected)
            parts.add(path, writer, writer.names)
    return parts


@dataclass(frozen=True)
class _Contents:
    """What a folder is to hold: its tensors; `own` leads from their names to the base's, `ties` from those tied."""

    tensors: Mapping[str, TensorInfo]
    own: Mapping[str, str]
    ties: Mapping[str, str]

    def below(self, prefix: str, names: Collection[str]) -> _Contents:
        """Those of these names, which begin with a prefix, without it."""
        cut = len(prefix)
        return _Contents(
            {name[cut:]: self.tensors[name] for name in names},
            {name[cut:]: self.own[name].removeprefix(prefix) for name in names if name in self.own},
            {
                name[cut:]: first[cut:]
                for name, first in self.ties.items()
                if name.startswith(prefix) and first.startswith(prefix)
            },
        )


def _open_like(base: Checkpoint, folder: Path, contents: _Contents) -> CheckpointWriter:
    """Lay tensors out as a base is. New ones go where the last ones are."""
    tensors = contents.tensors
    if isinstance(base, FolderCheckpoint):
        return _open_parts(base, folder, contents)
    if base.layout in ("torch", "torch-sharded") and base.path is not None:
        return _open_torch(base, folder, contents)
    if isinstance(base, ShardedSafetensorsCheckpoint):
        shards = {
            shard: {name: tensors[name] for name in names} for shard, names in _shards(contents, base.homes).items()
        }
        assert base.path is not None
        targets = [
            (folder / shard, make_header(part, base.shards[shard].header.metadata)) for shard, part in shards.items()
        ]
        return ShardedSafetensorsWriter(targets, [(folder / base.path.name, make_index(shards))])
    if base.layout == "npz":
        from diffpack.checkpoints.npz_writer import NpzWriter

        return NpzWriter(folder / _name_like(base, "npz", "weights.npz"), tensors)
    weights = _name_like(base, "safetensors", "model.safetensors")
    return ShardedSafetensorsWriter([(folder / weights, make_header(tensors, metadata(base)))])


def _open_parts(base: FolderCheckpoint, folder: Path, contents: _Contents) -> CheckpointWriter:
    """Lay tensors out in the folder and the sub-folders of a base, each part as the base's is."""
    rest = dict.fromkeys(contents.tensors)
    with _opened_parts() as parts:
        for path, part in sorted(base.parts.items(), key=lambda item: -len(item[0])):  # the deepest first
            prefix = f"{path}/" if path else ""
            mine = [name for name in rest if name.startswith(prefix)]
            if mine:
                (folder / path).mkdir(parents=True, exist_ok=True)
                below = contents.below(prefix, mine)
                parts.add(path, _open_like(part, folder / path, below), below.tensors)
            for name in mine:
                del rest[name]
        if rest:
            raise CheckpointError(f"{folder}: no part of the base is a place for {listed(sorted(rest))}")
    return parts


class _PartsWriter(CheckpointWriter):
    """Several writers as one: a tensor of the part of a sub-folder is called by its path."""

    def __init__(self) -> None:
        self._homes: dict[str, tuple[CheckpointWriter, str]] = {}
        self._writers: list[CheckpointWriter] = []

    def add(self, path: str, writer: CheckpointWriter, names: Iterable[str]) -> None:
        """Add the part of a sub-folder ("" for none), which has tensors of these names."""
        self._writers.append(writer)
        self._homes |= {f"{path}/{name}" if path else name: (writer, name) for name in names}

    def write(self, name: str, offset: int, data: npt.NDArray[Any]) -> None:
        """Hand the words to the writer of the tensor's part."""
        writer, own = self._homes[name]
        writer.write(own, offset, data)

    def write_block(self, words: Words, places: Sequence[Place]) -> None:
        """Hand the words to the writers of the tensors' parts."""
        for writer, own in groupby(places, lambda place: self._homes[place.name][0]):
            writer.write_block(words, [place._replace(name=self._homes[place.name][1]) for place in own])

    def publish(self) -> None:
        """Finish all parts."""
        for writer in self._writers:
            writer.publish()

    def discard(self) -> None:
        """Remove what was written of all parts."""
        for writer in self._writers:
            writer.discard()


@contextlib.contextmanager
def _opened_parts() -> Iterator[_PartsWriter]:
    """A writer to which the body adds parts; those it added are discarded if it fails."""
    parts = _PartsWriter()
    try:
        yield parts
    except BaseException:
        parts.discard()
        raise


def _open_torch(base: Checkpoint, folder: Path, contents: _Contents) -> CheckpointWriter:
    from diffpack.checkpoints.torch_reader import ShardedTorchCheckpoint
    from diffpack.checkpoints.torch_writer import ShardedTorchWriter, TorchWriter

    assert base.path is not None
    if isinstance(base, ShardedTorchCheckpoint):
        return ShardedTorchWriter(
            folder, _shards(contents, base.homes), contents.tensors, base.path.name, contents.ties
        )
    return TorchWriter(folder / _name_like(base, "torch", "pytorch_model.bin"), contents.tensors, contents.ties)


def _name_like(base: Checkpoint, layout: str, default: str) -> str:
    """The base's own file name, unless its ending promises another layout than the one that is written."""
    return base.path.name if base.path is not None and layout_of(base.path.name) == layout else default


def _shards(contents: _Contents, homes: Mapping[str, str]) -> dict[str, list[str]]:
    """Sort tensors into the base's shards (`homes`: base tensor -> shard); new ones into the last."""
    order = sorted(set(homes.values()))
    shards: dict[str, list[str]] = {shard: [] for shard in order}
    for name in contents.tensors:
        shards[homes.get(contents.own.get(name, ""), order[-1])].append(name)
    return {shard: names for shard, names in shards.items() if names}


def structure(result: Result) -> FileStructure:
    """The structure of an HDF5 output: the tuned file's where it is known, else the base's as far as it fits.

    What is then not the tuned file's is said in `result.untold`.
    """
    from diffpack.checkpoints.hdf5_structure_writer import PLAIN, fitted

    recorded = recorded_structure(result.diff, result.base, result.tensors)
    if recorded is not None:
        return recorded
    found = result.base.structure()
    if found is None:
        result.untold.append(_NO_STRUCTURE)
        return PLAIN
    result.untold.append(_BASE_STRUCTURE)
    view = result.view
    return fitted(
        found[0],
        result.tensors,
        lambda name: view.own.get(name) == name and view.info(name) == result.tensors[name],
    )


def metadata(base: Checkpoint) -> Mapping[str, str]:
    """The free metadata of a safetensors file that is laid out anew: the base's, if it has some."""
    if isinstance(base, SafetensorsCheckpoint):
        return base.header.metadata
    return {"format": "pt"}  # what the transformers library expects to find

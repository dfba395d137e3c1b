"""A model folder with weights in its sub-folders too: sentence-transformers' 2_Dense, the parts of a diffusion model.

A tensor of a sub-folder is called by its path: `2_Dense/linear.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.folder import find_weights, part_weights, passed_over
from diffpack.checkpoints.side_files import entered
from diffpack.errors import CheckpointError, MissingTensorError
from diffpack.format.file_names import is_weights
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.word_source import WordSource


class FolderCheckpoint(Checkpoint):
    """The weights of a folder and of its sub-folders; `parts` leads from a sub-folder's path ("" for none) to its own.

    Raises `CheckpointError` if two of them have a tensor of one name.
    """

    layout = "folder"

    def __init__(self, folder: Path, parts: Mapping[str, Checkpoint]) -> None:
        super().__init__(str(folder), folder)
        self.folder = folder
        self.parts = dict(parts)
        self._homes: dict[str, tuple[Checkpoint, str]] = {}
        self._tensors: dict[str, TensorInfo] = {}
        for path, part in self.parts.items():
            self.notes += [f"{path}: {note}" if path else note for note in part.notes]
            self.left_out += [f"{path}: {item}" if path else item for item in part.left_out]
            prefix = f"{path}/" if path else ""
            self.ties |= {prefix + own: prefix + first for own, first in part.ties.items()}
            for own, info in part.tensors.items():
                name = prefix + own
                if name in self._homes:
                    raise CheckpointError(f"{folder}: two tensors are called {name!r}")
                self._homes[name], self._tensors[name] = (part, own), info

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, sub-folder by sub-folder."""
        return self._tensors

    @property
    def files(self) -> list[Path]:
        """The files of all parts."""
        return [path for part in self.parts.values() for path in part.files]

    def words(self, name: str) -> Words:
        """A tensor's words, as its part gives them."""
        part, own = self._home(name)
        return part.words(own)

    def word_source(self, name: str) -> WordSource:
        """A tensor's words, part by part, as its part gives them."""
        part, own = self._home(name)
        return part.word_source(own)

    def _home(self, name: str) -> tuple[Checkpoint, str]:
        if name not in self._homes:
            raise MissingTensorError(f"{self.source}: no tensor {name!r}")
        return self._homes[name]

    def header_files(self) -> list[tuple[str, bytes]] | None:
        """The headers of all parts, by their paths; None unless each is made of safetensors, and has no index."""
        headers = []
        for path, part in self.parts.items():
            own = part.header_files()
            if own is None or (path and part.index_file() is not None):
                return None
            headers += [(f"{path}/{name}" if path else name, raw) for name, raw in own]
        return headers

    def index_file(self) -> tuple[str, bytes] | None:
        """The index of the folder's own shards."""
        return self.parts[""].index_file() if "" in self.parts else None

    def close(self) -> None:
        """Close all parts."""
        for part in self.parts.values():
            part.close()


def open_folder(folder: Path, open_file: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open a model folder: its own weights and those of its sub-folders. Raises `CheckpointError` if there are none."""
    parts = {path: open_file(weights) for path, weights in sorted(_parts(folder, "").items())}
    try:
        own = find_weights(folder)
    except CheckpointError:
        if not parts or any(is_weights(path.name) for path in folder.iterdir() if path.is_file()):
            raise
        return FolderCheckpoint(folder, parts)
    root = open_file(own)
    if others := passed_over(own):
        root.notes.append(f"{own.name} is read; beside it are {listed([printable(name) for name in others])}")
    if parts:
        return FolderCheckpoint(folder, {"": root, **parts})
    root.folder = folder
    return root


def _parts(folder: Path, prefix: str) -> dict[str, Path]:
    """The weights of sub-folders by the sub-folder's path."""
    parts: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = prefix + path.name
        if not path.is_dir() or not entered(path, name):
            continue
        weights = part_weights(path)
        if weights is not None:
            parts[name] = weights
        parts |= _parts(path, f"{name}/")
    return parts

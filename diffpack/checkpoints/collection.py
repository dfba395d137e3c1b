"""A folder of checkpoints: which of what it holds are whole models, each for itself."""

from __future__ import annotations

import os
from pathlib import Path

from diffpack.checkpoints.endings import is_index, weights_suffix
from diffpack.checkpoints.folder import candidates, shards_of
from diffpack.checkpoints.side_files import entered
from diffpack.errors import CheckpointError, UsageError
from diffpack.support.names import listed, printable


def checkpoints_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The checkpoints in a folder, sorted by their names, and the names of what is passed over.

    Each sub-folder that holds weights, itself or in its own sub-folders, and each file of weights; of shards their
    index. Hidden ones are passed over, too, and not named. Whether they can be read is not looked at. Raises
    `CheckpointError` if it is no folder, or there are none.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    files, parts = set(candidates(folder)), set[str]()
    for index in filter(is_index, sorted(files)):
        shards = shards_of(folder / index)
        if shards and shards.isdisjoint(files):  # a stale one, of shards that are gone
            files.discard(index)
            continue
        files -= shards
        parts |= shards
    found, others = [], []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.name in files or (path.is_dir() and _holds_weights(path, "")):
            found.append(path)
        elif path.name not in parts:
            others.append(path.name)
    if not found:
        which = f"; it holds {listed([printable(name) for name in others])}" if others else ""
        raise CheckpointError(f"{folder}: no checkpoints in it, neither folders nor files{which}")
    return found, others


def _holds_weights(folder: Path, prefix: str) -> bool:
    if candidates(folder):
        return True
    inside = ((path, prefix + path.name) for path in sorted(folder.iterdir()) if path.is_dir())
    return any(entered(path, name) and _holds_weights(path, f"{name}/") for path, name in inside)


def own_name(checkpoint: str | os.PathLike[str]) -> str:
    """What a checkpoint is called by its path: the folder's name, or the file's without its weights suffix.

    Raises `UsageError` for a path without any name.
    """
    path = Path(checkpoint)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    if not path.is_dir():
        name = name.removesuffix(weights_suffix(name)) or name
    if not name:
        raise UsageError(f"{os.fspath(checkpoint)}: has no name to call the diff by; name it with -o")
    return name

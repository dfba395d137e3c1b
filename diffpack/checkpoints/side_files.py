"""The small files beside the weights of a model folder: configuration, tokenizer, templates, in its sub-folders too."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from diffpack.checkpoints.base import Checkpoint
from diffpack.checkpoints.folder import is_training_state
from diffpack.checkpoints.linked_files import leads_out
from diffpack.errors import CheckpointError
from diffpack.format.file_names import alike, folders_of, is_code, is_plain_path, is_weights
from diffpack.format.limits import PATH_PARTS
from diffpack.support.names import printable

SIDE_FILE_SUFFIXES = frozenset(
    {".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".spm", ".vocab", ".yaml", ".yml"}
)
"""What loading a model or its tokenizer reads; another suffix may follow (tokenizer.model.v3). Read-me pages, other
weights, and code unless it is asked for, stay out, and are said."""
MOST_SIDE_FILE_BYTES = 64 << 20
"""Larger than any tokenizer in use; a file above it is reported and left out."""
_MOST_FILES = 4096  # of one folder; more of them are no model
_TRAINING = re.compile(r"checkpoint-\d+")  # what transformers' Trainer calls the states it saves on its way

_STATE = " (training state)"
_LARGE = f" (over {MOST_SIDE_FILE_BYTES >> 20} MiB)"
_NO_NAME = " (not every system can have this name)"
_TAKEN = " (some systems take its name for another file's)"
_LINK = " (a link out of the folder: copy the file itself here to keep it)"


@dataclass(frozen=True)
class SideFiles:
    """The side files of a folder by their path in it, those that are code apart, and the paths of what is left out."""

    files: dict[str, Path]
    code: dict[str, Path]
    left_out: tuple[str, ...]

    def chosen(self, *, code: bool) -> dict[str, Path]:
        """The files to keep, sorted by path; with `code` those that are code, too."""
        return dict(sorted((self.files | self.code).items())) if code else self.files

    def not_kept(self, *, code: bool) -> list[str]:
        """What a diff does not keep of the folder, sorted; what of a name is no text, or is not seen, is spelt out."""
        names = [*self.left_out, *(() if code else self.code)]
        return sorted(printable(os.fsencode(name).decode("utf-8", "backslashreplace")) for name in names)


def side_files(folder: Path, weights: Collection[Path] = ()) -> SideFiles:
    """List what stands beside the `weights` of a model folder.

    Hidden files and folders, folders of other training states, links to folders, links to files that are not the
    model's, weights that are not among `weights`, large files, and names that no output folder may have are left out,
    with the reason where it is not seen; a folder of which nothing is kept is named once.
    """
    listing = _Listing(folder, frozenset(path.absolute() for path in weights))
    listing.walk(folder, "")
    return SideFiles(dict(sorted(listing.files.items())), dict(sorted(listing.code.items())), tuple(listing.left_out))


class _Listing:
    """What was found so far; `taken` has the paths, and those of their folders, as some systems see them."""

    def __init__(self, folder: Path, weights: frozenset[Path]) -> None:
        self.folder = folder
        self.weights = weights
        self.files: dict[str, Path] = {}
        self.code: dict[str, Path] = {}
        self.left_out: list[str] = []
        self._taken: set[str] = set()
        self._folders: set[str] = set()
        for path in weights:
            if path.is_relative_to(folder.absolute()):
                self._take(path.relative_to(folder.absolute()).as_posix())

    def walk(self, folder: Path, prefix: str) -> bool:
        """Look at a folder and those in it; tell whether anything of it is kept."""
        kept = False
        inside: list[str] = []
        for path in sorted(folder.iterdir()):
            name = prefix + path.name
            if path.is_dir():
                if entered(path, name) and self.walk(path, f"{name}/"):
                    kept = True
                else:
                    inside.append(f"{name}/{_STATE if _TRAINING.fullmatch(path.name) else ''}")
            elif path.absolute() in self.weights:
                kept = True
            elif (reason := self._why_not(path, name)) is not None:
                inside.append(name + reason)
            else:
                kept = True
                self._take(name)
                (self.code if is_code(name) else self.files)[name] = path
        if kept or not prefix:
            self.left_out += inside
        return kept

    def _why_not(self, path: Path, name: str) -> str | None:
        """Why a file is not kept, for people ("" where its name says it); None if it is."""
        if is_training_state(path.name):
            return _STATE
        if is_weights(name) or not path.is_file():
            return ""
        if path.stat().st_size > MOST_SIDE_FILE_BYTES:
            return _LARGE
        if not is_code(name) and SIDE_FILE_SUFFIXES.isdisjoint(path.suffixes):
            return ""
        if path.name.startswith(".") or len(self.files) + len(self.code) >= _MOST_FILES:
            return ""
        if not is_plain_path(name):
            return _NO_NAME
        if leads_out(path, self.folder):
            return _LINK
        folded = alike(name)
        meets = folded in self._taken or folded in self._folders or not self._taken.isdisjoint(folders_of(folded))
        return _TAKEN if meets else None

    def _take(self, name: str) -> None:
        folded = alike(name)
        self._taken.add(folded)
        self._folders.update(folders_of(folded))


def entered(folder: Path, name: str) -> bool:
    """Tell whether a sub-folder is part of the model: not hidden, no link, no state of training, not too deep."""
    outside = folder.name.startswith(".") or folder.is_symlink() or _TRAINING.fullmatch(folder.name)
    return not outside and name.count("/") < PATH_PARTS - 1


def files_of(checkpoint: Checkpoint) -> list[Path]:
    """All files that a diff of a checkpoint is made of: those of the tensors, and the side files of its folder."""
    if checkpoint.folder is None:
        return checkpoint.files
    return [*checkpoint.files, *side_files(checkpoint.folder, checkpoint.files).chosen(code=True).values()]


def content_of(path: Path) -> bytes:
    """What a side file holds. Raises `CheckpointError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def named(left_out: Collection[str], most: int = 50) -> str:
    """Name what was left out, for people: the first of them, and how many more there are."""
    first = sorted(left_out)[:most]
    return ", ".join(first) + (f" and {len(left_out) - most} more" if len(left_out) > most else "")

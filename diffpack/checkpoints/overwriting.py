"""What an output may take the place of: nothing without `--force`, with it a file, or a folder that is a model's."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from diffpack.checkpoints.endings import KERAS_SUFFIX, WRITTEN_SUFFIXES, ends_as_folder, is_index, seems_a_file
from diffpack.checkpoints.side_files import SIDE_FILE_SUFFIXES
from diffpack.errors import UsageError
from diffpack.support.atomic import atomic_folder, place_of, refuse_taken
from diffpack.support.leftovers import is_debris, restore
from diffpack.support.names import printable

_WEIGHTS = (*WRITTEN_SUFFIXES, KERAS_SUFFIX)
"""Endings of weights that are written here, or that a model folder has."""
_ARRAYS_INDEX = "diffpack.json"
"""What says what a folder of SciPy arrays holds, as `convert` writes it."""
_PAGES = frozenset({"readme", "license", "licence", "notice", "copying", "use_policy", "model_card"})
_PAGE_SUFFIXES = frozenset({"", ".md", ".rst"})
"""The pages of a model folder, whatever their letters' case; those in .txt are side files."""
_VERSION = re.compile(r"\.v?\d+")  # tokenizer.model.v3; after other endings it may be anything
_MOST_NAMED = 3  # files that an error lists


def refuse_overwriting(
    output: Path, inputs: Sequence[Path], force: bool, *, folder: bool = True, own: Collection[str] = ()
) -> None:
    """Raise `UsageError` for an output that is in the way of something.

    One that is one of `inputs` or holds one, that exists while `force` is false, that is neither a file nor a folder
    (nor a folder, unless `folder`), that has no place, or that is a folder which may not be replaced (see
    `refuse_other_folder`). Links are followed. Gives back, first, what a killed run had moved away.
    """
    target = place_of(output)
    restore(target)
    for item in inputs:
        source = item.resolve()
        if target == source or target in source.parents or (source.is_dir() and source in target.parents):
            raise UsageError(f"{output}: the output is also an input ({item}); choose another name")
    if target.is_dir() and not folder:
        raise UsageError(f"{output}: a folder; name the file to write")
    refuse_taken(output, replace=force)
    if not target.parent.is_dir():
        raise UsageError(f"{output}: its folder {target.parent} does not exist")
    if target.is_dir():
        refuse_other_folder(output, own)


def refuse_other_folder(output: Path, own: Collection[str] = ()) -> None:
    """Raise `UsageError` for a folder that is more than a model's, which would be lost if it were replaced.

    It may hold weights, what says where they are, side files, the pages of a model, files by one of the paths in `own`,
    and folders of such files; and weights it must hold, unless it is empty. A folder that cannot be renamed is refused,
    too: one that a disk is mounted on, or that this process is in.
    """
    target = place_of(output)
    if os.path.ismount(target):
        raise UsageError(f"{output}: a disk is mounted there, so it cannot be replaced; name a folder in it")
    with contextlib.suppress(FileNotFoundError):  # a current folder that was removed
        if target in (Path.cwd(), *Path.cwd().parents):
            raise UsageError(f"{output}: the folder you are in; go elsewhere, or name another output")
    empty, weights, others = True, False, []
    for path in _files(target, ""):
        empty, weights = False, weights or _is_weights(path)
        if path not in own and not _is_known(path):
            others.append(printable(path))
        if len(others) > _MOST_NAMED:
            others[_MOST_NAMED] = "and more"
            break
    if others:
        raise UsageError(
            f"{output}: holds what is no part of a model, and would be lost: {', '.join(others)}; "
            "remove it, or choose another name"
        )
    if not (weights or empty):
        raise UsageError(
            f"{output}: a folder without weights, so not one of a model; remove it, or choose another name"
        )


def refuse_file_name(output: str | os.PathLike[str], files: Collection[str] = ()) -> None:
    """Raise `UsageError` for an output that is to become a folder and is called as a file, maybe by a slip.

    Folders may have dots in their names. One that is there, or is written with a slash at its end, is meant. `files`
    are the endings of outputs that would be files.
    """
    ending = seems_a_file(output)
    if not ending or ends_as_folder(output) or os.path.isdir(output):
        return
    own = PurePath(output).suffix
    like = "" if own.casefold() == ending else f", nearly {ending}"
    instead = f", or with one of {', '.join(files)} to write a file" if files else ""
    raise UsageError(
        f"{output}: called as a file ({own}{like}), and would be a folder: end it with / to write a folder{instead}"
    )


@contextlib.contextmanager
def model_folder(output: Path, *, replace: bool, own: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder that becomes `output` if the body succeeds, as with `atomic_folder`.

    What it replaces is looked at again, since hours may have passed. Raises `UsageError`.
    """
    with atomic_folder(output, replace=replace) as folder:
        yield folder
        if replace and output.is_dir():
            refuse_other_folder(output, own)


def _files(folder: Path, prefix: str) -> Iterator[str]:
    """What a folder holds, by the paths in it, sorted: of folders what they hold, else the thing itself.

    What killed runs were writing there is not told of.
    """
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if is_debris(folder / entry.name):
            continue
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield prefix + entry.name
        else:  # a hidden folder, a link to a folder or to nothing, a device
            yield f"{prefix}{entry.name}/"


def _is_known(path: str) -> bool:
    """Tell whether a file of this path in a model folder is one of the model's."""
    name = PurePath(path.casefold())
    if path.endswith("/") or name.name.startswith("."):
        return False
    if _VERSION.fullmatch(name.suffix):
        name = name.with_suffix("")
    page = name.suffix in _PAGE_SUFFIXES and name.stem in _PAGES
    return _is_weights(path) or page or name.suffix in SIDE_FILE_SUFFIXES


def _is_weights(path: str) -> bool:
    return path.casefold().endswith((*_WEIGHTS, _ARRAYS_INDEX)) or is_index(path)

"""Outputs that appear whole or not at all: a temporary sibling, flush, fsync, rename.

What an output replaces stays as it was until the one step in which the new one takes its name, and an output that is
not to replace anything takes only a name that is free, however late another run took it. A killed run leaves at most
its temporary siblings, which the next one into that folder removes (`leftovers`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from diffpack.errors import DiffpackError, OutputError, UsageError
from diffpack.support.leftovers import (
    claim_file,
    claim_folder,
    is_temporary,
    lock_abandoned,
    remove,
    restore,
    sweep,
    temporary_names,
)
from diffpack.support.names import printable
from diffpack.support.renames import exchange, move_new, sync_folder

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What the system says of a disk that is full, or fails; it says so of descriptors, which have no name."""
_NOTHING_KEPT = "nothing was kept; make room, look after the disk, or name another place"


def place_of(output: Path) -> Path:
    """The file or folder an output is, or is to be: where links lead, so that these stay.

    Raises `UsageError` for a link that leads nowhere, for what is neither a file nor a folder, and for a name that no
    file can have.
    """
    try:
        os.lstat(output)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"{printable(str(output))}: no file can be called so: {cause}") from None
    target = Path(os.path.realpath(output))
    if not os.path.lexists(output):
        return target
    try:
        found = os.stat(output)
    except OSError as error:
        raise UsageError(
            f"{output}: a link that leads nowhere ({error.strerror}); remove it, or name another output"
        ) from None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise UsageError(f"{output}: neither a file nor a folder; - writes a diff to standard output")
    if not (target.exists() and os.path.samestat(target.stat(), found)):  # a file that has no name any more
        raise UsageError(f"{output}: a link to what has no name; name another output")
    return target


def refuse_taken(output: Path, *, replace: bool) -> None:
    """Raise `UsageError` if an output exists that may not be replaced."""
    if os.path.lexists(output) and not replace:
        raise UsageError(f"{output}: exists already; use --force to replace it")


@contextlib.contextmanager
def atomic_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path`, whose `name` is its path, for reading and writing.

    It becomes `path`, or the file that links there lead to, if the body succeeds. Raises `UsageError` for a folder, for
    what `place_of` refuses, and, unless it may `replace` a file, where something is: at once, and if it came meanwhile;
    `OutputError` if the disk does not take it.
    """
    if path.is_dir():
        raise UsageError(f"{path}: a folder; name the file to write")
    with _sibling(path, replace, claim_file, _publish_file) as temporary, temporary.open("r+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool) -> Iterator[Path]:
    """Make a temporary sibling folder, which becomes `path`, or the folder links there lead to, if the body succeeds.

    With `replace` it takes the place of a file or of a folder with all it holds: what that may be is the caller's to
    check. Raises as `atomic_file`.
    """
    with _sibling(path, replace, claim_folder, _publish_folder) as temporary:
        yield temporary
        _sync_tree(temporary)


@contextlib.contextmanager
def _sibling(
    path: Path,
    replace: bool,
    claim: Callable[[Path], int | None],
    publish: Callable[[Path, Path, Path, bool], None],
) -> Iterator[Path]:
    target = place_of(path)
    within = is_temporary(target.parent.name)  # in a folder that is temporary itself, and owned
    if not within:
        restore(target)
        sweep(target)
    refuse_taken(path, replace=replace)
    temporary, replaced = temporary_names(target)  # named before it exists: a signal at any instant finds it
    owner = None
    try:
        owner = claim(temporary)
        if within:
            owner, kept = None, owner
            _let_go(kept)
        yield temporary
        if sys.platform == "win32":  # nothing that is open is renamed there
            owner, kept = None, owner
            _let_go(kept)
        try:
            publish(temporary, target, replaced, replace)
        except FileExistsError:
            refuse_taken(path, replace=replace)
            raise
        _sync_name(path, target)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError) and not isinstance(error, DiffpackError) and not within:
            raise _named(error, temporary, path)  # noqa: B904 - which may be the error itself
        raise
    finally:
        _let_go(owner)


def _sync_name(path: Path, target: Path) -> None:
    """Bring the name of an output that was just renamed to the disk. Raises `OutputError`."""
    try:
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: is written, but the folder it is in could not be brought to the disk ({error.strerror}): it may "
            "be gone after a loss of power",
            error,
            hint="look after the disk, then write it again",
        ) from error


def _named(error: OSError, temporary: Path, path: Path) -> OSError:
    """An error of the disk as one about an output, or about a file in it; others as they are."""
    if error.errno not in _OF_THE_DISK:
        return error
    where = path
    if error.filename is not None:
        found = Path(os.fsdecode(error.filename))
        if not found.is_relative_to(temporary):
            return error
        where = path / found.relative_to(temporary)
    return OutputError(f"{where}: cannot be written: {error.strerror}", error, hint=_NOTHING_KEPT)


def _let_go(owner: int | None) -> None:
    if owner is not None:
        os.close(owner)


def _publish_file(temporary: Path, target: Path, _: Path, replace: bool) -> None:
    if replace:
        os.replace(temporary, target)
    else:
        move_new(temporary, target)


def _publish_folder(temporary: Path, target: Path, replaced: Path, replace: bool) -> None:
    try:
        move_new(temporary, target)
    except FileExistsError:
        if not replace:
            raise
        if not exchange(temporary, target):
            _replace_in_steps(temporary, target, replaced)
        remove(temporary)  # which is what was replaced, now


def _replace_in_steps(temporary: Path, target: Path, replaced: Path) -> None:
    """Exchange two names by way of a third. A run that is killed on the way leaves what `restore` repairs."""
    owner = lock_abandoned(target)
    try:
        os.rename(target, replaced)
        os.rename(temporary, target)
        os.rename(replaced, temporary)  # so that what has the third name is always whole
    except BaseException:
        if os.path.lexists(replaced):
            os.rename(replaced, temporary if os.path.lexists(target) else target)
        raise
    finally:
        _let_go(owner)


def _sync_tree(folder: Path) -> None:
    """Bring all files of a folder to the disk, and the names in it and its sub-folders. Raises `OSError` about one."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with _about(Path(parent, name)), Path(parent, name).open("r+b") as file:  # not every system syncs what is
                os.fsync(file.fileno())  # opened for reading
        with _about(Path(parent)):
            sync_folder(Path(parent))


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class AtomicStack(contextlib.ExitStack):
    """Several atomic files and folders at once: `close` renames each to its name, the last entered first."""

    def discard(self) -> None:
        """Leave what was entered as after a body that failed: all temporary files and folders are removed."""
        with contextlib.suppress(_Discarded), self:
            raise _Discarded


class _Discarded(Exception):  # noqa: N818 - not an error: it tells what was entered to clean up
    pass

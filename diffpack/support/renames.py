"""Renames that the system does in one step: two names exchanged, or a name taken only while it is free."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_CURRENT_FOLDER = -100  # AT_FDCWD of fcntl.h
_ONLY_IF_FREE, _EXCHANGE = 1, 2  # RENAME_NOREPLACE, RENAME_EXCHANGE of linux/fs.h
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM})
"""What a kernel, a file system, or a sandbox says that does not have these renames. A plain rename is tried then, which
says the same where it was about the files."""
_NOT_SYNCED = frozenset({*_CANNOT, errno.EACCES, errno.EBADF, errno.EISDIR})
"""What systems say that open no folders, or sync none."""
_FOLDER_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def exchange(one: Path, other: Path) -> bool:
    """Let two names that exist change places; False, with nothing done, where the system cannot."""
    return _renamed(one, other, _EXCHANGE)


def move_new(source: Path, target: Path) -> None:
    """Give a file or folder a name that nothing has. Raises `FileExistsError`, with nothing done, if something has it.

    Of two processes that do so with one name, one succeeds. An empty folder may be replaced by a folder.
    """
    if _renamed(source, target, _ONLY_IF_FREE):
        return
    if source.is_dir():
        _move_folder(source, target)
    elif os.name == "nt":
        os.rename(source, target)  # refuses a name that is taken, there
    else:
        _move_file(source, target)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can do that. Raises `OSError` if it fails."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SYNCED:
            raise


def _renamed(source: Path, target: Path, how: int) -> bool:
    call = _renameat2()
    if call is None:
        return False
    names = os.fsencode(source), os.fsencode(target)
    if call(_AT_CURRENT_FOLDER, names[0], _AT_CURRENT_FOLDER, names[1], how) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """The C library's renameat2, which Python does not offer; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


def _move_folder(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)  # a folder that holds something is never replaced
    except OSError as error:
        if error.errno in _FOLDER_TAKEN:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _move_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without second names: an empty file takes the name, and is replaced
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            os.replace(source, target)
        except BaseException:
            os.unlink(target)
            raise
    else:
        os.unlink(source)

"""Temporary names beside an output, whose they are, and what killed runs left under them.

A run locks what it writes (flock). The lock goes with the process, however it ends, and no other sign of an owner is
as good: the number of a process may be another's by now, and means nothing on another machine or in another container
that shares the folder. So what can be locked has no owner. Where the system has no such locks, nothing is taken for a
leftover.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
from hashlib import sha256
from pathlib import Path

from diffpack.support.renames import move_new

_TOKEN_BYTES = 6
_LONG = 100  # bytes of a name; temporary names, which are 20 longer, must fit where names are encrypted: 143
_KEPT, _DIGITS = 60, 16  # of a long name: bytes of its beginning, and digits that tell it from others
_PATTERN = re.compile(r"\.(?P<start>.+)\.[0-9a-f]{12}\.(?P<kind>part|old)", re.DOTALL)


def temporary_names(target: Path) -> tuple[Path, Path]:
    """Two new names beside an output: `.part` for what is being written, `.old` for what it is to replace."""
    stem = target.parent / f".{_start(target.name)}.{secrets.token_hex(_TOKEN_BYTES)}"
    return Path(f"{stem}.part"), Path(f"{stem}.old")


def is_temporary(name: str) -> bool:
    """Tell whether a name is of the kind `temporary_names` gives."""
    return _PATTERN.fullmatch(name) is not None


def lasting(path: Path) -> Path:
    """What a path of or in what is being written will be, for people (a name over 100 bytes is cut)."""
    found = (_PATTERN.fullmatch(part) for part in path.parts)
    return Path(*(match["start"] if match else part for match, part in zip(found, path.parts, strict=True)))


def _start(name: str) -> str:
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= _LONG:
        return name
    return raw[:_KEPT].decode("utf-8", "ignore") + "~" + sha256(raw).hexdigest()[:_DIGITS]


def claim_file(path: Path) -> int:
    """Make an empty file of a new name, owned as long as the descriptor that is given stays open."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if _own(descriptor, path):
            return descriptor
        os.close(descriptor)


def claim_folder(path: Path) -> int | None:
    """Make an empty folder of a new name, owned as long as the descriptor stays open (None: it cannot be owned)."""
    while True:
        os.mkdir(path)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # taken for a leftover before it was locked
            continue
        except PermissionError:  # a system that opens no folders
            return None
        if _own(descriptor, path):
            return descriptor
        os.close(descriptor)


def lock_abandoned(path: Path) -> int | None:
    """Lock a file or folder that nobody owns, until the descriptor is closed; None if it may have an owner."""
    descriptor = None
    try:
        descriptor = _open(path)
        if _lock(descriptor, wait=False) and _is_at(descriptor, path):
            return descriptor
    except OSError:  # it is gone, a link, somebody else's, or cannot be locked here
        pass
    if descriptor is not None:
        os.close(descriptor)
    return None


def is_debris(path: Path) -> bool:
    """Tell whether something is what a killed run was writing."""
    match = _PATTERN.fullmatch(path.name)
    descriptor = lock_abandoned(path) if match and match["kind"] == "part" else None
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def sweep(target: Path) -> None:
    """Remove what killed runs left in an output's folder, of any output there.

    What a run had moved away (`.old`) is removed only if its output is there; else `restore` is for it.
    """
    for path, start, kind in _leftovers(target.parent):
        output = target if start == _start(target.name) else target.parent / start
        if kind == "part" or os.path.lexists(output):
            descriptor = lock_abandoned(path)
            if descriptor is not None:
                remove(path)
                os.close(descriptor)


def restore(target: Path) -> None:
    """Give an output back that a run had moved away when it was killed, if nothing has its name."""
    if os.path.lexists(target):
        return
    for path, start, kind in _leftovers(target.parent):
        if kind == "old" and start == _start(target.name):
            descriptor = lock_abandoned(path)
            if descriptor is not None:
                with contextlib.suppress(FileExistsError):
                    move_new(path, target)
                os.close(descriptor)


def _leftovers(folder: Path) -> list[tuple[Path, str, str]]:
    """What has a temporary name in a folder: where it is, how its output's name starts, `part` or `old`."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    matches = [match for name in names if (match := _PATTERN.fullmatch(name))]
    return [(folder / match[0], match["start"], match["kind"]) for match in matches]


def _open(path: Path) -> int:
    """Open a file or folder, never a link or a device. Raises `OSError`."""
    how = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(f"{path}: neither a file nor a folder")
    return os.open(path, how | (os.O_RDONLY if stat.S_ISDIR(mode) else os.O_RDWR))


def _own(descriptor: int, path: Path) -> bool:
    """Lock what was just made; False if another run has removed it before, as a leftover.

    Where nothing can be locked it is just used: others cannot lock it, either, and let it be.
    """
    with contextlib.suppress(OSError):
        _lock(descriptor, wait=True)
    return _is_at(descriptor, path)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":

    def _lock(_descriptor: int, *, wait: bool) -> bool:  # noqa: ARG001 - one signature on all systems
        return False

else:
    import fcntl

    def _lock(descriptor: int, *, wait: bool) -> bool:
        """Lock it for this process alone; False if another one has. Raises `OSError` where there are no such locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

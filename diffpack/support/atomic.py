"""Outputs that appear whole or not at all: a temporary sibling, flush, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from diffpack.errors import UsageError


def refuse_overwriting(output: Path, inputs: Sequence[Path], force: bool, *, folder: bool = True) -> None:
    """Raise `UsageError` for an output that is in the way of something.

    One that is one of `inputs` or holds one, that exists while `force` is false, that is neither a file nor a folder
    (nor a folder, unless `folder`), or that has no place. A symbolic link is replaced, never followed.
    """
    resolved = output.resolve()
    for item in inputs:
        source = item.resolve()
        if resolved == source or resolved in source.parents or (source.is_dir() and source in resolved.parents):
            raise UsageError(f"{output}: the output is also an input ({item}); choose another name")
    if output.is_dir() and not folder:
        raise UsageError(f"{output}: a folder; name the file to write")
    if output.exists() and not (output.is_file() or output.is_dir()):
        raise UsageError(f"{output}: neither a file nor a folder; - writes to standard output")
    if os.path.lexists(output) and not force:
        raise UsageError(f"{output}: exists already; use --force to replace it")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: its folder {output.absolute().parent} does not exist")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path` for reading and writing; rename it to `path` if the body succeeds."""
    temporary = _sibling(path, ".part")  # named before it exists: a signal at any instant finds it
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.absolute().parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a temporary sibling folder; rename it to `path` (replacing what is there) if the body succeeds."""
    temporary, replaced = _sibling(path, ".part"), _sibling(path, ".old")
    try:
        os.mkdir(temporary)
        yield temporary
        for item in temporary.rglob("*"):
            if item.is_file():
                with item.open("r+b") as file:  # not every system syncs what is opened for reading
                    os.fsync(file.fileno())
        if path.exists():
            os.replace(path, replaced)
        os.replace(temporary, path)
        _sync_folder(path.absolute().parent)
    except BaseException:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if replaced.is_dir():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.unlink(missing_ok=True)


def _sibling(path: Path, ending: str) -> Path:
    start = path.name.encode("utf-8", "surrogateescape")[:80].decode("utf-8", "ignore")  # names have a length in bytes
    return path.absolute().parent / f".{start}.{secrets.token_hex(6)}{ending}"


class AtomicStack(contextlib.ExitStack):
    """Several atomic files and folders at once: `close` renames each to its name, the last entered first."""

    def discard(self) -> None:
        """Leave what was entered as after a body that failed: all temporary files and folders are removed."""
        with contextlib.suppress(_Discarded), self:
            raise _Discarded


class _Discarded(Exception):  # noqa: N818 - not an error: it tells what was entered to clean up
    pass


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

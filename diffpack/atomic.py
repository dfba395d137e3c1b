"""Outputs that appear whole or not at all: a temporary sibling, flush, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diffpack.errors import UsageError


def refuse_overwriting(output: Path, inputs: list[Path], force: bool) -> None:
    """Raise `UsageError` if `output` is one of `inputs` (or holds one), or exists and `force` is false."""
    resolved = output.resolve()
    for item in inputs:
        source = item.resolve()
        if resolved == source or resolved in source.parents or (source.is_dir() and source in resolved.parents):
            raise UsageError(f"{output}: the output is also an input ({item}); choose another name")
    if output.exists() and not force:
        raise UsageError(f"{output}: exists already; use --force to replace it")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: its folder {output.absolute().parent} does not exist")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling of `path` for reading and writing; rename it to `path` if the body succeeds."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.absolute().parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            _default_mode(file.fileno())
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.absolute().parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary sibling folder; rename it to `path` (replacing a folder there) if the body succeeds."""
    parent = path.absolute().parent
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=parent))
    replaced: Path | None = None
    try:
        yield temporary
        for item in temporary.rglob("*"):
            if item.is_file():
                with item.open("rb") as file:
                    os.fsync(file.fileno())
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".old", dir=parent))
            os.replace(path, replaced / "old")
        os.replace(temporary, path)
        _sync_folder(parent)
    except BaseException:
        if replaced is not None and not path.exists() and (replaced / "old").exists():
            os.replace(replaced / "old", path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)


class AtomicStack(contextlib.ExitStack):
    """Several atomic files and folders at once: `close` renames each to its name, the last entered first."""

    def discard(self) -> None:
        """Leave what was entered as after a body that failed: all temporary files and folders are removed."""
        with contextlib.suppress(_Discarded), self:
            raise _Discarded


class _Discarded(Exception):  # noqa: N818 - not an error: it tells what was entered to clean up
    pass


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _default_mode(descriptor: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.fchmod(descriptor, 0o666 & ~_umask())


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

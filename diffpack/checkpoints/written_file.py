"""A file that is written piece by piece, and opened for each where there may be more of them than can be open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from diffpack.errors import OutputError
from diffpack.support.leftovers import lasting

CREATE = os.O_CREAT | os.O_EXCL
"""New only: a system may take the names of two files of a model for one, and the second must not eat the first."""


@contextlib.contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a file for a while, to read and write. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def create(path: Path, content: bytes) -> None:
    """Write a new file. Raises `OutputError`, also where the file system has one of this name."""
    with writing(path), path.open("xb") as file:
        file.write(content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system raises into an `OutputError` about a file."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{lasting(path)}: cannot be written: {error.strerror}", error) from error

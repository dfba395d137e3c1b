"""Keys, lists of signers and signatures: files of a few lines, read whole and once, up to a limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from diffpack.errors import DiffpackError, UsageError

MOST_BYTES = 1 << 20
"""Of one such file: a list of ten thousand signers fits, what is no list does not fill the memory."""


def read_small(path: str | os.PathLike[str], what: str) -> bytes:
    """The bytes of a file; `~` is the user's folder. `what` says in errors what it was to be.

    Raises `FileNotFoundError`, `UsageError` for what is no file or too large, `DiffpackError` if it cannot be read.
    """
    place = Path(path).expanduser()
    try:
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path}: not a file, and so no {what}")
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DiffpackError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path}: over {MOST_BYTES:,} bytes, and so no {what}")
    return data

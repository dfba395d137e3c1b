"""The files something is made of, and whether they stayed the same while they were read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from diffpack.errors import CheckpointError

Signature = tuple[int, int, int, int] | None
"""Device, inode, size, time of the last change; None: not there."""


class Inputs:
    """Files read from now on: made right after they are opened, looked at again before anything is published.

    Large files are read several times (hashed, compared, coded): bits that changed in between would fit neither what
    was hashed nor each other. Watched are size, time of change and identity, which tell all but a change that hides
    itself; folders among `paths` are not.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self._before = {path: signature(path) for path in self.paths}

    def and_now(self, paths: Iterable[Path]) -> Inputs:
        """These files as they were, and further ones as they are now."""
        both = Inputs(paths)
        both.paths = tuple(dict.fromkeys((*self.paths, *both.paths)))
        both._before |= self._before
        return both

    def check(self) -> None:
        """Raise `CheckpointError` if a file is another now."""
        for path, before in self._before.items():
            if signature(path) != before:
                raise CheckpointError(
                    f"{path}: changed while it was read; nothing was kept: run it again when nothing writes to it"
                )

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check after the body. What it raises, too, may be no more than the consequence of bytes that changed."""
        try:
            yield
        except CheckpointError:  # which tells of a file already
            raise
        except Exception as error:
            try:
                self.check()
            except CheckpointError as changed:
                raise changed from error
            raise
        self.check()


def signature(path: Path) -> Signature:
    """What tells a file from another, or from itself after a change; None for a folder and what is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

"""The diffs people mean: those that are given, and by the path of a folder all in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffpack.diff.diff import Diff, DiffLike
from diffpack.errors import UsageError

SUFFIX = ".dpk"


def each_diff(diffs: DiffLike | Sequence[DiffLike]) -> Iterator[DiffLike]:
    """One diff, or several, with those in each folder in its place. Raises `UsageError` for a folder without diffs."""
    for item in [diffs] if isinstance(diffs, Diff | str | bytes | os.PathLike) else diffs:
        if isinstance(item, str | os.PathLike) and os.path.isdir(item):
            yield from diffs_in(Path(item))
        else:
            yield item


def called(diff: DiffLike) -> tuple[str, int | None]:
    """Name of a diff that perhaps cannot be opened, and bytes of its file (None if that is not known)."""
    if isinstance(diff, Diff):
        return diff.name, diff.nbytes
    if isinstance(diff, bytes):
        return "diff in memory", len(diff)
    try:
        return os.fspath(diff), Path(diff).stat().st_size
    except (OSError, ValueError):
        return os.fspath(diff), None


def diffs_in(folder: Path) -> list[Path]:
    """The files in a folder, or in folders inside it, that are called diffs: `*.dpk`, sorted; hidden ones are not.

    Folders that are links are not followed. Raises `UsageError` if there are none.
    """
    found: list[Path] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(where) / name for name in sorted(files) if _is_diff(name)]
    if not found:
        raise UsageError(f"{folder}: no diffs in it (files that end with {SUFFIX})")
    return found


def _is_diff(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")

"""The diffs people mean by a path: the file, or all diffs in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from diffpack.errors import UsageError

SUFFIX = ".dpk"


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

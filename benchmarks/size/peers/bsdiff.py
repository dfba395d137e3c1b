"""bsdiff of the files."""

from __future__ import annotations

from pathlib import Path

import bsdiff4


def encode(base: Path, tuned: Path, out: Path) -> None:
    bsdiff4.file_diff(str(base), str(tuned), str(out))


def decode(base: Path, out: Path, result: Path) -> None:
    bsdiff4.file_patch(str(base), str(result), str(out))

"""A file as a model folder, which is what some peers read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that holds the file as `model.safetensors` (a link)."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.safetensors").symlink_to(path.resolve())
        yield Path(name)

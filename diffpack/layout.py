"""The file layout of a safetensors checkpoint: what apply needs to give the tuned files back, byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

from blake3 import blake3

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.safetensors_file import SafetensorsCheckpoint, ShardedSafetensorsCheckpoint
from diffpack.fingerprint import DIGEST_BYTES
from diffpack.manifest import Layout


def describe(checkpoint: Checkpoint) -> tuple[Layout, bytes] | None:
    """Give a checkpoint's layout (marked as stored) and its blob; None if it is not safetensors."""
    if not isinstance(checkpoint, SafetensorsCheckpoint | ShardedSafetensorsCheckpoint):
        return None
    headers = checkpoint.header_files()
    index = checkpoint.index_file()
    folder = checkpoint.folder is not None or index is not None
    blob = b"".join(header for _, header in headers) + (index[1] if index else b"")
    layout = Layout(
        files=tuple((name if folder else "", len(header)) for name, header in headers),
        index=(index[0], len(index[1])) if index else None,
        folder=folder,
        stored=True,
        digest=blake3(blob).digest()[:DIGEST_BYTES].hex(),
    )
    return layout, blob


def split_blob(layout: Layout, blob: bytes) -> tuple[list[tuple[str, bytes]], tuple[str, bytes] | None]:
    """Cut a blob into (file name, header) pairs and (index name, index)."""
    headers, start = [], 0
    for name, size in layout.files:
        headers.append((name, blob[start : start + size]))
        start += size
    return headers, (layout.index[0], blob[start:]) if layout.index else None


def sha256_of(checkpoint: Checkpoint, layout: Layout) -> tuple[str, ...]:
    """Give the SHA-256 of the layout's files, in its order (then the index)."""
    assert checkpoint.path is not None
    home = checkpoint.path.parent
    names = [name or checkpoint.path.name for name, _ in layout.files]
    if layout.index:
        names.append(layout.index[0])
    return tuple(file_sha256(home / name) for name in names)


def file_sha256(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

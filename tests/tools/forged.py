"""Diffs whose manifest lies, with digests that fit: what somebody writes who knows the format."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

from diffpack.format.chunks import EncodedChunk
from diffpack.format.reader import ContainerReader
from diffpack.format.source import MemorySource
from diffpack.format.writer import ContainerWriter


def forged(data: bytes, lie: Callable[[dict[str, Any]], Any]) -> bytes:
    """The same chunks with another manifest: `lie` changes it in place, as a dictionary."""
    reader = ContainerReader(MemorySource(data, "forged"))
    manifest = copy.deepcopy(reader.manifest)
    lie(manifest)
    file = io.BytesIO()
    writer = ContainerWriter(file)
    for chunk in reader.chunks:
        writer.add(EncodedChunk(data[chunk.offset : chunk.offset + chunk.nbytes], chunk.digest, chunk.streams))
    writer.finish(manifest)
    return file.getvalue()

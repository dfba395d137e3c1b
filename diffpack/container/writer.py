"""Write a container in one pass: header, chunks as they come, manifest, trailer."""

from __future__ import annotations

from typing import Any, BinaryIO

import zstandard

from diffpack.container import canonical, frame
from diffpack.container.table import ChunkSpec, EncodedChunk

MANIFEST_LEVEL = 19  # manifests are small; their bytes count in every diff


class ContainerWriter:
    """Appends chunks to a binary file, then closes it with a manifest; `chunks` is the table so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = frame.HEADER_BYTES
        self.chunks: list[ChunkSpec] = []
        file.write(frame.pack_header())

    def add(self, chunk: EncodedChunk) -> None:
        """Append one chunk."""
        self._file.write(chunk.data)
        self.chunks.append(ChunkSpec(self._offset, len(chunk.data), chunk.digest, chunk.streams))
        self._offset += len(chunk.data)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest (members `chunks` and `requires` are filled in here) and the trailer."""
        codecs: set[str] = set().union(*(chunk.codecs for chunk in self.chunks)) - {"raw"}
        features = sorted(codecs | set(manifest["requires"]))
        table = [chunk.to_json() for chunk in self.chunks]
        decoded = canonical.encode({**manifest, "chunks": table, "requires": features})
        compressed = zstandard.ZstdCompressor(level=MANIFEST_LEVEL, write_checksum=False).compress(decoded)
        codec, stored = ("zstd", compressed) if len(compressed) < len(decoded) else ("raw", decoded)
        trailer = frame.Trailer(self._offset, len(stored), len(decoded), codec)
        self._file.write(stored)
        self._file.write(frame.pack_trailer(trailer, stored))
        self._file.flush()

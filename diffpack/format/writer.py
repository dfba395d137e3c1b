"""Write a container in one pass: header, chunks as they come, manifest, trailer."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import zstandard

from diffpack.format import frame
from diffpack.format.chunks import ChunkSpec, EncodedChunk, encode_chunk
from diffpack.format.features import FEATURES
from diffpack.format.manifest import to_canonical

MANIFEST_LEVEL = 19  # manifests are small; their bytes count in every diff


class ContainerWriter:
    """Appends chunks to a seekable binary file, then closes it with a manifest; `chunks` is the table so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self._offset = frame.HEADER_BYTES
        self.chunks: list[ChunkSpec] = []
        file.write(frame.pack_header())

    def add(self, chunk: EncodedChunk) -> None:
        """Append one chunk."""
        self._file.write(chunk.data)
        self.chunks.append(ChunkSpec(self._offset, len(chunk.data), chunk.digest, chunk.streams))
        self._offset += len(chunk.data)

    def add_blob(self, content: bytes, profile: str) -> None:
        """Append a layout or a side file as a chunk of its own; `profile` as for `streams.encode`."""
        self.add(encode_chunk([np.frombuffer(content, np.uint8)], profile))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest (members `chunks` and `requires` are filled in here) and the trailer.

        A file says the oldest version of the format that has all it requires, which is known only here.
        """
        codecs: set[str] = set().union(*(chunk.codecs for chunk in self.chunks)) - {"raw"}
        features = sorted(codecs | set(manifest["requires"]))
        table = [chunk.to_json() for chunk in self.chunks]
        decoded = to_canonical({**manifest, "chunks": table, "requires": features})
        compressed = zstandard.ZstdCompressor(level=MANIFEST_LEVEL, write_checksum=False).compress(decoded)
        codec, stored = ("zstd", compressed) if len(compressed) < len(decoded) else ("raw", decoded)
        trailer = frame.Trailer(self._offset, len(stored), len(decoded), codec)
        header = frame.pack_header(max((FEATURES[feature] for feature in features), default=0))
        self._file.write(stored)
        self._file.write(frame.pack_trailer(trailer, stored, header))
        self._write_header(header)
        self._file.flush()

    def _write_header(self, header: bytes) -> None:
        end = self._file.tell()
        self._file.seek(self._start)
        self._file.write(header)
        self._file.seek(end)

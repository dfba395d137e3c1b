"""Write a container in one pass: header, chunks as they come, manifest, trailer."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import zstandard

from diffpack.errors import UsageError
from diffpack.format import frame
from diffpack.format.chunks import ChunkSpec, EncodedChunk, encode_chunk, stored_raw
from diffpack.format.features import FEATURES
from diffpack.format.limits import MANIFEST_DECODED, MANIFEST_VALUES, NUMBERS
from diffpack.format.manifest import count_values, to_canonical

_THOROUGH_LEVEL = 19
_THOROUGH_BYTES = 1 << 19
"""Manifests are small, and their bytes count in every diff. Of those of thousands of tensors most bytes are digests,
which no search makes smaller: at that level it takes a second a megabyte, and finds matches that cost more than they
save (18,000 tensors: 607 kB in 0.96 s, 592 kB in 0.002 s without)."""
_LONG_MATCHES = zstandard.ZstdCompressionParameters(
    window_log=22, chain_log=16, hash_log=17, search_log=3, min_match=7, strategy=zstandard.STRATEGY_DFAST,
    write_content_size=True, write_checksum=False,
)  # fmt: skip
"""Matches of names and shapes, not those that random hex digits have by chance."""


class ContainerWriter:
    """Appends chunks to a seekable binary file, then closes it with a manifest; `chunks` is the table so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self._offset = frame.HEADER_BYTES
        self._numbers = 0
        self.chunks: list[ChunkSpec] = []
        file.write(frame.pack_header())

    def add(self, chunk: EncodedChunk) -> None:
        """Append one chunk; without its codec if with it the file had too few bytes for its numbers (rule F8)."""
        numbers = self._numbers + sum(stream.count for stream in chunk.streams)
        if numbers > NUMBERS.most(self._offset + len(chunk.data)):
            chunk = stored_raw(chunk)
        self._numbers = numbers
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
        codec, stored = self._stored(decoded)
        trailer = frame.Trailer(self._offset, len(stored), len(decoded), codec)
        header = frame.pack_header(max((FEATURES[feature] for feature in features), default=0))
        self._file.write(stored)
        self._file.write(frame.pack_trailer(trailer, stored, header))
        self._write_header(header)
        self._file.flush()

    def _stored(self, decoded: bytes) -> tuple[str, bytes]:
        """A manifest as it is stored: compressed, but where a reader would refuse so much in so few bytes (rule F8).

        Raises `UsageError` if it has more values than a reader takes in a file of that size.
        """
        values = count_values(decoded)
        for codec, stored in (("zstd", _compressed(decoded)), ("raw", decoded)):
            size = self._offset + len(stored) + frame.TRAILER_BYTES
            taken = values <= MANIFEST_VALUES.most(size) and len(decoded) <= MANIFEST_DECODED.most(len(stored))
            if taken and (codec == "raw" or len(stored) < len(decoded)):
                return codec, stored
        raise UsageError(
            f"a manifest of {values:,} values (names, dimensions, streams) in a file of {size:,} bytes is more than a "
            "diff may have: store the tensors in several diffs"
        )

    def _write_header(self, header: bytes) -> None:
        end = self._file.tell()
        self._file.seek(self._start)
        self._file.write(header)
        self._file.seek(end)


def _compressed(manifest: bytes) -> bytes:
    """A manifest as a Zstandard frame."""
    if len(manifest) <= _THOROUGH_BYTES:
        return zstandard.ZstdCompressor(level=_THOROUGH_LEVEL, write_checksum=False).compress(manifest)
    return zstandard.ZstdCompressor(compression_params=_LONG_MATCHES).compress(manifest)

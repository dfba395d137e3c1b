"""Read a container: trailer and manifest first, then any chunk."""

from __future__ import annotations

from typing import Any

from diffpack.errors import CorruptFileError, TruncatedFileError, UnsupportedFormatError
from diffpack.format import frame
from diffpack.format.chunks import ChunkSpec, decode_chunk, parse_table
from diffpack.format.features import FEATURES
from diffpack.format.manifest import from_canonical
from diffpack.format.source import ByteSource
from diffpack.format.streams import Numbers
from diffpack.format.streams.zstd import decompress
from diffpack.support.names import listed


class ContainerReader:
    """An opened container: its version, its raw manifest, its chunk table, and access to decoded chunks.

    `digest` is that of its manifest, which has those of all chunks: two files that share it hold the same.

    Raises `TruncatedFileError`, `CorruptFileError` or `UnsupportedFormatError`. Safe from several threads.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        where = source.name
        if source.size < frame.HEADER_BYTES + frame.TRAILER_BYTES:
            raise TruncatedFileError(f"{where}: {source.size} bytes are too few for a diffpack file", "F1")
        header = source.read(0, frame.HEADER_BYTES)
        self.version = frame.check_header(header, where)
        tail = source.read(source.size - frame.TRAILER_BYTES, frame.TRAILER_BYTES)
        trailer = frame.parse_trailer(tail, source.size, where)
        stored = source.read(trailer.offset, trailer.stored)
        self.digest = frame.check_digest(header, stored, tail, where)
        self.manifest_bytes = trailer.stored
        self.manifest = from_canonical(_decode_manifest(stored, trailer, where), source.size, where)
        _check_features(self.manifest, where)
        self.chunks: list[ChunkSpec] = parse_table(
            self.manifest.get("chunks"), frame.HEADER_BYTES, trailer.offset, source.size, where
        )
        _check_codecs(self.manifest["requires"], self.chunks, where)

    def chunk(self, index: int, streams: int | None = None) -> list[Numbers]:
        """Read and check chunk `index` and decode its first streams (None: all): one integer array a stream."""
        spec = self.chunks[index]
        data = self.source.read(spec.offset, spec.nbytes)
        return decode_chunk(spec, data, f"{self.source.name}: chunk {index}", streams)


def _decode_manifest(stored: bytes, trailer: frame.Trailer, where: str) -> bytes:
    if trailer.codec == "zstd":
        return decompress(stored, trailer.decoded, f"{where}: manifest", "F6")
    if trailer.stored != trailer.decoded:
        raise CorruptFileError(f"{where}: a raw manifest with two sizes", "F6")
    return stored


def _check_features(manifest: dict[str, Any], where: str) -> None:
    for member in ("requires", "optional"):
        features = manifest.get(member)
        if (
            not isinstance(features, list)
            or not all(isinstance(feature, str) for feature in features)
            or features != sorted(set(features))
        ):
            raise CorruptFileError(f"{where}: {member!r} is not a sorted list of names", "M2")
    unknown = [feature for feature in manifest["requires"] if feature not in FEATURES]
    if unknown:
        message = f"{where}: needs the feature {listed(unknown)}, which this diffpack does not know: upgrade"
        raise UnsupportedFormatError(message, "M3")


def _check_codecs(requires: list[str], chunks: list[ChunkSpec], where: str) -> None:
    used: set[str] = set().union(*(chunk.codecs for chunk in chunks)) - {"raw"}
    if not used <= set(requires):
        raise CorruptFileError(f"{where}: uses {sorted(used)} but requires {requires}", "M3")

"""Chunks of a diff written into another file as they are stored: nothing is decoded, nothing coded anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from diffpack.diff.diff import Diff
from diffpack.format.chunks import EncodedChunk
from diffpack.format.manifest import Manifest, to_json
from diffpack.format.writer import ContainerWriter


def copy_chunks(writer: ContainerWriter, diff: Diff, which: Iterable[int]) -> None:
    """Append chunks of a diff, by their places in its chunk table. Raises `CorruptFileError` for a damaged one."""
    for at in which:
        chunk = diff.chunks[at]
        writer.add(EncodedChunk(diff.stored(chunk), chunk.digest, chunk.streams))


def write_again(file: BinaryIO, diff: Diff, manifest: Manifest) -> None:
    """Write all of a diff with another manifest around the same chunks. Raises `CorruptFileError` for a damaged one."""
    writer = ContainerWriter(file)
    copy_chunks(writer, diff, range(len(diff.chunks)))
    writer.finish(to_json(manifest))

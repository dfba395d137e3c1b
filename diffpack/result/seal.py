"""Seal a lossy diff: record what applying it gives, by applying what was just written."""

from __future__ import annotations

from typing import BinaryIO

from msgspec.structs import replace

from diffpack.checkpoints import Checkpoint
from diffpack.diff.publish import reopened
from diffpack.extraction.distortion import Distortion
from diffpack.format.manifest import Manifest, to_json
from diffpack.format.writer import ContainerWriter
from diffpack.result.result import Result


def sealed(
    file: BinaryIO,
    writer: ContainerWriter,
    manifest: Manifest,
    base: Checkpoint,
    threads: int | None,
    distortion: Distortion | None = None,
) -> Manifest:
    """Give the manifest with the fingerprint of the result; the file is left as it was before.

    With `distortion`, which knows the tuned checkpoint, also with the result's errors. Raises `WrongBaseError` if the
    base is not the recorded one.
    """
    mark = file.tell()
    writer.finish(to_json(manifest))
    with reopened(file, "the diff being written") as diff:
        found = Result(diff, base).run(distortion.see if distortion else None, threads=threads)
    file.seek(mark)
    file.truncate()
    assert found.result is not None
    manifest = replace(manifest, result=replace(manifest.result, fingerprint=found.result))
    if distortion is None:
        return manifest
    groups = tuple(
        replace(group, errors=distortion.of(group.names)) if group.tensor_dtype.arithmetic else group
        for group in manifest.groups
    )
    return replace(manifest, groups=groups, error=distortion.overall)

"""Seal a lossy diff: record what applying it gives, by applying what was just written."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from msgspec.structs import replace

from diffpack.checkpoints import Checkpoint
from diffpack.diff.publish import reopened
from diffpack.format.manifest import Manifest, to_json
from diffpack.format.writer import ContainerWriter
from diffpack.result.result import Check, Result, Write


def with_result_fingerprint(
    file: BinaryIO,
    writer: ContainerWriter,
    manifest: Manifest,
    base: Checkpoint,
    threads: int | None,
    see: Write | None = None,
    done: Callable[[int], None] | None = None,
) -> tuple[Manifest, Check]:
    """The manifest with the fingerprint of the result, and what the run that found it found; the file stays as it was.

    `see` is shown the result, block by block, `done` told the bytes of each tensor that is done. Raises
    `WrongBaseError` if the base is not the recorded one.
    """
    check = check_of(file, writer, manifest, base, threads, see, done)
    assert check.result is not None
    return replace(manifest, result=replace(manifest.result, fingerprint=check.result)), check


def check_of(
    file: BinaryIO,
    writer: ContainerWriter,
    manifest: Manifest,
    base: Checkpoint,
    threads: int | None,
    see: Write | None = None,
    done: Callable[[int], None] | None = None,
) -> Check:
    """What applying gives that is written so far with this manifest; the file is left as it was before.

    `see` and `done` are told of it as it comes. Raises `WrongBaseError` if the base is not the recorded one.
    """
    mark = file.tell()
    writer.finish(to_json(manifest))
    with reopened(file, "the diff being written") as diff:
        check = Result(diff, base).run(see, threads=threads, done=done)
    file.seek(mark)
    file.truncate()
    return check

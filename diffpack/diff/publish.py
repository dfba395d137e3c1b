"""A diff file that was just written appears whole and readable, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from diffpack.checkpoints.endings import ends_as_folder
from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.diff import Diff, open_diff
from diffpack.errors import CorruptFileError, UsageError
from diffpack.format.source import FileSource
from diffpack.support.atomic import atomic_file
from diffpack.support.inputs import Inputs


def write_diff(
    output: str | os.PathLike[str] | None,
    inputs: Inputs,
    force: bool,
    body: Callable[[BinaryIO], None],
) -> Diff:
    """Let `body` write a diff to `output`, or to an unnamed temporary file if that is None, and open it.

    `inputs` are the files that were opened for it. Raises `UsageError` if the output exists and `force` is false, if it
    is one of the inputs or called as a folder, or if what was written is no diff by the format's rules;
    `CheckpointError` if an input is not what it was when it was opened.
    """
    if output is None:
        with tempfile.TemporaryFile() as file:
            with inputs.unchanged():
                _write(file, body)
            return reopened(file, "diff in memory")
    path = Path(output)
    if ends_as_folder(output):
        raise UsageError(f"{os.fspath(output)}: a folder, by the slash at its end; name the file to write")
    refuse_overwriting(path, inputs.paths, force, folder=False)
    with atomic_file(path, replace=force) as file:
        with inputs.unchanged():
            _write(file, body)
        reopened(file, str(path)).close()
    return open_diff(path)


def write_for(diff: Diff, inputs: Inputs, body: Callable[[BinaryIO], None]) -> Diff:
    """Let `body` write a diff to an unnamed temporary file that stands for another one, and open it.

    Errors are about that one, and it is what must not be written over. Raises as `write_diff` does.
    """
    made = write_diff(None, inputs, False, body)
    made.name, made.path = diff.name, diff.path
    return made


def _write(file: BinaryIO, body: Callable[[BinaryIO], None]) -> None:
    try:
        body(file)
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object[:80]!r} is no valid text: it cannot be stored") from None


def reopened(file: BinaryIO, name: str) -> Diff:
    """Open a diff that was just written, by the ordinary reader. Raises `UsageError` if that refuses it."""
    file.flush()
    try:
        diff = Diff(FileSource.share(file, name))
        diff.check_result_size(diff.manifest.result.bytes, diff.manifest.base.bytes)  # what no reader would apply
        return diff
    except CorruptFileError as error:
        raise UsageError(f"what is to be stored does not fit the format: {error}") from None

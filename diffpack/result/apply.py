"""apply: a base and a diff -> the result, on disk or in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diff
from diffpack.errors import CheckpointError, ResultMismatchError, UsageError, WrongBaseError
from diffpack.result import overflow
from diffpack.result.outputs import open_output
from diffpack.result.result import Check, Result
from diffpack.result.unchanged import unchanged
from diffpack.result.wrong_base import fingerprint_of_result, told_where
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress
from diffpack.tensors.dtypes import Words, fits_array, words_array


@dataclass(frozen=True)
class Applied:
    """What apply did.

    `fingerprint` is the result's, None if it was not verified; `sealed` says whether the diff records it (a merge made
    without the base does not). `untold` names what of the tuned files neither the diff nor the base tells. `already`
    says that the base was the result before: the output is the base as it is.
    """

    output: Path
    tensors: int
    nbytes: int
    exact: bool
    fingerprint: str | None
    sealed: bool = True
    untold: tuple[str, ...] = ()
    already: bool = False


def apply(
    base: CheckpointLike,
    diff: DiffLike,
    output: str | os.PathLike[str],
    *,
    verify: bool = True,
    files: bool = True,
    code: bool = False,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Applied:
    """Write the result of a diff on its base, whole or not at all.

    The ending of `output` chooses the layout (.safetensors, .bin, .pt, .pth, .h5, .npz, ...); another name is a folder,
    laid out as the tuned checkpoint was, or as the base is. One that ends like a file's and is to be a folder has a
    slash at its end. An exact diff of safetensors files gives those files back
    byte for byte. `verify` checks base and result against the recorded fingerprints, and files written as the tuned
    ones were against their SHA-256 where the diff has it; without it only the base tensors that the diff touches are
    checked. `files` false leaves side files out; into a folder the base's come along where the diff names none. `code`
    lets code among them through, which is refused otherwise.
    Entries that lossy values make infinite, where the base's are finite, are told in the base's notes. A base that is
    the diff's result already is written as it is.

    Raises `WrongBaseError`, `CorruptFileError`, `ResultMismatchError`, `CheckpointError`, `UsageError` (an existing
    output without `force`, an output that is an input, a folder to replace that is more than a model's).
    """
    checkpoint, opened, path = open_checkpoint(base), open_diff(diff), Path(output)
    inputs = [*checkpoint.files, *([checkpoint.folder] if checkpoint.folder else [])]
    inputs += files_behind([opened])
    own = [item.name for item in opened.manifest.files]
    refuse_overwriting(path, inputs, force, own=own)

    def write(source: Diff) -> Applied:
        result = Result(source, checkpoint)
        total = sum(info.nbytes for info in result.tensors.values())
        with open_output(output, result, files=files, code=code, verify=verify, replace=force) as writer:
            check = result.run(writer.write, verify=verify, threads=threads, done=_counter(progress, total))
            check_result(source, check)
        _note_infinite(checkpoint, check)
        sealed = source.manifest.result.fingerprint is not None
        return Applied(path, len(result.tensors), total, opened.exact, check.result, sealed, tuple(result.untold))

    try:
        return write(opened)
    except WrongBaseError as error:
        same = unchanged(checkpoint, fingerprint_of_result(error, opened, checkpoint, threads), code=code)
        return replace(write(same), already=True)


def load(
    base: CheckpointLike,
    diff: DiffLike,
    *,
    framework: Literal["numpy", "torch"] = "numpy",
    verify: bool = True,
    threads: int | None = None,
) -> dict[str, Any]:
    """The result of a diff on its base in memory: name -> writable numpy array or torch tensor.

    numpy arrays of dtypes numpy lacks have ml_dtypes' dtypes (bfloat16, float8_*); those below a byte are flat
    arrays of their packed bytes. Raises as `apply` does, `CheckpointError` for a shape that no array can have, and
    `MissingDependencyError` without torch.
    """
    if framework not in ("numpy", "torch"):
        raise UsageError(f"the framework is numpy or torch, not {framework!r}")
    checkpoint, opened = open_checkpoint(base), open_diff(diff)
    with told_where(opened, checkpoint, threads):
        result = Result(opened, checkpoint)
    for name, info in result.tensors.items():
        if not fits_array(info.dtype, info.shape):
            raise CheckpointError(
                f"{opened.name}: {printable(name)}: no array can have its shape; apply writes it to a file"
            )
    arrays = {name: np.empty(info.words, info.dtype.word) for name, info in result.tensors.items()}

    def write(name: str, offset: int, words: Words) -> None:
        first = offset // words.dtype.itemsize
        arrays[name][first : first + words.size] = words

    with told_where(opened, checkpoint, threads):
        check = result.run(write, verify=verify, threads=threads)
    check_result(opened, check)
    _note_infinite(checkpoint, check)
    if framework == "torch":
        from diffpack.checkpoints.torch_tensors import to_torch

        return {name: to_torch(words, result.tensors[name], name) for name, words in arrays.items()}
    infos = result.tensors
    return {name: words_array(words, infos[name].dtype, infos[name].shape) for name, words in arrays.items()}


def check_result(diff: Diff, check: Check) -> None:
    """Raise `ResultMismatchError` if a run arrived at another result than the diff records (if it does)."""
    expected = diff.manifest.result.fingerprint
    if check.result is None or (expected in (check.result, None) and not check.wrong):
        return
    tensors = f"; these tensors differ: {listed([printable(name) for name in check.wrong])}" if check.wrong else ""
    raise ResultMismatchError(
        f"{diff.name}: applying it gives the fingerprint {check.result}, recorded is {expected}{tensors} [A6]"
    )


def _note_infinite(base: Checkpoint, check: Check) -> None:
    """Add to the base's notes which tensors have entries that lossy values made infinite."""
    if check.infinite:
        base.notes.append(overflow.remark(check.infinite))


def _counter(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    lock = threading.Lock()
    count = 0

    def add(nbytes: int) -> None:
        nonlocal count
        with lock:
            count += nbytes
            progress("applying", count, total)

    return add

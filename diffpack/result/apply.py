"""apply: a base and a diff -> the result, on disk or in memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.base import CheckpointWriter, Place
from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diff
from diffpack.errors import CheckpointError, ResultMismatchError, UsageError, WrongBaseError
from diffpack.result import overflow
from diffpack.result.given_names import names_given
from diffpack.result.outputs import open_output
from diffpack.result.result import Check, Result
from diffpack.result.signature import signed_as_asked
from diffpack.result.unchanged import unchanged
from diffpack.result.wrong_base import fingerprint_of_result, told_where
from diffpack.support.cycles import rare_collections
from diffpack.support.memory import memory_told
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress, counter
from diffpack.tensors.dtypes import Words, fits_array, words_array

if TYPE_CHECKING:
    from diffpack.signing.checking import SignatureWanted, Signed


@dataclass(frozen=True)
class Applied:
    """What apply did.

    `fingerprint` is the result's, None if it was not verified; `sealed` says whether the diff records it (a merge made
    without the base does not). `untold` names what of the tuned files neither the diff nor the base tells. `already`
    says that the base was the result before: the output is the base as it is. `signed` says who signed the diff, where
    that was asked for.
    """

    output: Path
    tensors: int
    nbytes: int
    exact: bool
    fingerprint: str | None
    sealed: bool = True
    untold: tuple[str, ...] = ()
    already: bool = False
    signed: Signed | None = None


@memory_told
@rare_collections()
def apply(
    base: CheckpointLike,
    diff: DiffLike,
    output: str | os.PathLike[str],
    *,
    verify: bool = True,
    files: bool = True,
    code: bool = False,
    require_signature: SignatureWanted = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Applied:
    """Write the result of a diff on its base, whole or not at all.

    The ending of `output` chooses the layout (.safetensors, .bin, .pt, .pth, .h5, .npz, ...); another name is a folder,
    laid out as the tuned checkpoint was, or as the base is. One that ends like a file's and is to be a folder has a
    slash at its end. An exact diff of safetensors files gives those files back byte for byte. `verify` checks base and
    result against the recorded fingerprints, and files written as the tuned ones were against their SHA-256 where the
    diff has it; without it only the base tensors that the diff touches are checked. `files` false leaves side files
    out; into a folder the base's come along where the diff names none. `code` lets code among them through, which is
    refused otherwise. Entries that lossy values make infinite, where the base's are finite, are told in the base's
    notes. A base that is the diff's result already is written as it is. `require_signature` says whose signature the
    diff must have (`RequiredSignature`, or just its signers), before anything is written.

    A base in memory (a module, its state dict, arrays) must hold the whole base: the output is the whole result.

    Raises `WrongBaseError`, `SignatureError`, `CorruptFileError`, `ResultMismatchError`, `CheckpointError`; and
    `UsageError`: an output that exists (without `force`) or is an input, a folder to replace that is more than a model.
    """
    checkpoint, opened, path = open_checkpoint(base), open_diff(diff), Path(output)
    signed = signed_as_asked(opened, require_signature)
    inputs = [*checkpoint.files, *([checkpoint.folder] if checkpoint.folder else [])]
    inputs += files_behind([opened])
    own = [item.name for item in opened.manifest.files]
    refuse_overwriting(path, inputs, force, own=own)

    def write(source: Diff) -> Applied:
        result = Result(source, checkpoint, verify=verify, threads=threads)
        _require_whole(result)
        with open_output(output, result, files=files, code=code, verify=verify, replace=force) as writer:
            return _written(result, writer, path, opened.exact, verify, threads, progress)

    try:
        return replace(write(opened), signed=signed)
    except WrongBaseError as error:
        same = unchanged(checkpoint, fingerprint_of_result(error, opened, checkpoint, threads), code=code)
        return replace(write(same), already=True, signed=signed)


def _written(
    result: Result, writer: CheckpointWriter, path: Path, exact: bool, verify: bool, threads: int | None,
    progress: Progress | None,
) -> Applied:  # fmt: skip
    """Write a result, checked, and say what was written."""
    total = sum(info.nbytes for info in result.tensors.values())
    check = result.run(writer.write_block, verify=verify, threads=threads, done=counter(progress, "applying", total))
    check_result(result.diff, check)
    _note_infinite(result.base, check)
    sealed = result.diff.manifest.result.fingerprint is not None
    return Applied(path, len(result.tensors), total, exact, check.result, sealed, tuple(result.untold))


@memory_told
def load(
    base: CheckpointLike,
    diff: DiffLike,
    *,
    framework: Literal["numpy", "torch"] = "numpy",
    names: Literal["base", "result"] | None = None,
    partial: bool = False,
    verify: bool = True,
    require_signature: SignatureWanted = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """The result of a diff on its base in memory: name -> writable numpy array or torch tensor.

    numpy arrays of dtypes numpy lacks have ml_dtypes' dtypes (bfloat16, float8_*); those below a byte are flat
    arrays of their packed bytes.

    The base may be a live model: a `torch.nn.Module`, its `state_dict()`, or arrays by name. Its names may have another
    prefix than the diff's base, and it may hold more and lack what the diff does not change (with `partial` also some
    of what it does, which is then left out). Where it lacks something, each tensor that changes is checked by its own
    digest, before and after; what the diff does not touch is passed on unchecked, since only the fingerprint of the
    whole base speaks of it; and what may be tied to a changed tensor under a name the diff does not know is left out
    (a further name of the same memory gets what the first one gets).

    `names` says whose names the tensors get: those of the diff's "result", or the "base"'s own as far as it has them,
    which `module.load_state_dict(..., strict=False)` takes. None means the base's for a module, a `state_dict()`, and
    a mapping that has names of its own or is not just the diff's base; the result's for all else.

    Raises as `apply` does, `CheckpointError` for a shape that no array can have, and `MissingDependencyError` without
    torch.
    """
    if framework not in ("numpy", "torch"):
        raise UsageError(f"the framework is numpy or torch, not {framework!r}")
    if names not in (None, "base", "result"):
        raise UsageError(f"the names are those of the base or of the result, not {names!r}")
    checkpoint, opened = open_checkpoint(base), open_diff(diff)
    signed_as_asked(opened, require_signature)
    with told_where(opened, checkpoint, threads):
        result = Result(opened, checkpoint, verify=verify, partial=partial, threads=threads)
        given = names_given(result, names)
        arrays = made(result, verify=verify, threads=threads)
    loaded = _in_framework(result, arrays, framework)
    return {new: loaded[name] for new, name in given.items()}


def made(
    result: Result, *, verify: bool = True, threads: int | None = None, without: Collection[str] = ()
) -> dict[str, Words]:
    """The words of each tensor of a result, checked; what is to be said of them is added to the base's notes.

    Those of `without` are checked and not kept. Raises as `load` does.
    """
    arrays = _empty_arrays(result, without)

    def write(words: Words, places: Sequence[Place]) -> None:
        for place in places:
            if place.name not in arrays:
                continue
            start, size = place.offset // words.itemsize, place.stop - place.first
            arrays[place.name][start : start + size] = words[place.first : place.stop]

    check = result.run(write, verify=verify, threads=threads)
    check_result(result.diff, check)
    _note_infinite(result.base, check)
    if verify and not result.extent.whole:
        result.base.notes.append(_partly_checked(result))
    return arrays


def _empty_arrays(result: Result, without: Collection[str]) -> dict[str, Words]:
    """Words for each other tensor of a result. Raises `CheckpointError` for a shape that no array can have."""
    for name, info in result.tensors.items():
        if not fits_array(info.dtype, info.shape):
            raise CheckpointError(
                f"{result.diff.name}: {printable(name)}: no array can have its shape; apply writes it to a file"
            )
    return {name: np.empty(info.words, info.dtype.word) for name, info in result.tensors.items() if name not in without}


def _in_framework(result: Result, arrays: dict[str, Words], framework: str) -> dict[str, Any]:
    """A result's words as numpy arrays or torch tensors."""
    infos = result.tensors
    if framework == "torch":
        from diffpack.checkpoints.torch_tensors import to_torch

        return {name: to_torch(words, infos[name], name) for name, words in arrays.items()}
    return {name: words_array(words, infos[name].dtype, infos[name].shape) for name, words in arrays.items()}


def _require_whole(result: Result) -> None:
    """Raise `WrongBaseError` if a base in memory is a part of the diff's base."""
    if not result.extent.whole:
        base, recorded = result.base, result.diff.manifest.base
        raise WrongBaseError(
            f"{base.source}: not the whole base of {result.diff.name}: it has {len(base.tensors)} tensors that may not "
            f"be the {recorded.tensors} of the base, and the output would lack some; `load` takes such a base, or "
            "give the base's files"
        )


def _partly_checked(result: Result) -> str:
    """Say what of a base was checked, if that was not all."""
    checked = sum(record.base is not None and name in result.tensors for name, record in result.diff.items())
    lacking = listed([printable(name) for name in sorted(result.view.lacking)])
    return (
        f"{result.base.source}: not all of the base of {result.diff.name}, so its fingerprint says nothing: the "
        f"{checked} tensors that change were checked, the others were not{f'; left out: {lacking}' if lacking else ''}"
    )


def check_result(diff: Diff, check: Check) -> None:
    """Raise `ResultMismatchError` if a run arrived at another result than the diff records (if it does)."""
    expected = diff.manifest.result.fingerprint
    if not check.wrong and (check.result is None or expected in (check.result, None)):
        return
    tensors = f"; these tensors differ: {listed([printable(name) for name in check.wrong])}" if check.wrong else ""
    found = (
        "other bits than recorded"
        if check.result is None
        else f"the fingerprint {check.result}, recorded is {expected}"
    )
    raise ResultMismatchError(f"{diff.name}: applying it gives {found}{tensors} [A6]")


def _note_infinite(base: Checkpoint, check: Check) -> None:
    """Add to the base's notes which tensors have entries that lossy values made infinite."""
    if check.infinite:
        base.notes.append(overflow.remark(check.infinite))

"""The structure of an HDF5 checkpoint: what apply needs to give back more than the tensors of the tuned file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.format.hdf5_structure import FileStructure, check_tensors, from_content, to_content
from diffpack.format.manifest import Structure, to_canonical
from diffpack.support.names import printable
from diffpack.tensors.digests import short_digest
from diffpack.tensors.info import TensorInfo


def keep_structure(base: Checkpoint, tuned: Checkpoint) -> Structure | None:
    """Keep the tuned file's structure, if it is HDF5; its content only if the base's differs.

    What cannot be kept of it is added to `tuned.left_out`.
    """
    found = _described(tuned)
    if found is None:
        return None
    described, left_out = found
    tuned.left_out += [item for item in map(printable, left_out) if item not in tuned.left_out]
    of_base = _described(base)
    same = of_base is not None and of_base[0].digest == described.digest
    return Structure(described.digest, None) if same else described


def recorded_structure(diff: Diff, base: Checkpoint, tensors: Mapping[str, TensorInfo]) -> FileStructure | None:
    """The tuned file's structure, from the diff or from the base; None if neither has it.

    `tensors` are the result's. Raises `CorruptFileError` (L5) if the structure is of other ones.
    """
    recorded = diff.manifest.structure
    if recorded is None:
        return None
    content = recorded.content
    if content is None:
        of_base = _described(base)
        if of_base is None or of_base[0].digest != recorded.digest:
            return None
        content = of_base[0].content
    assert content is not None
    check_tensors(content, tensors, diff.name)
    return from_content(content, diff.name)


def inherited_structure(diffs: Sequence[Diff]) -> Structure | None:
    """The last result's structure, from the diff of a chain that has it; None if the chain does not tell it."""
    last = diffs[-1].manifest.structure
    if last is None:
        return None
    for diff in reversed(diffs):
        own = diff.manifest.structure
        if own is None or own.digest != last.digest:
            return None
        if own.content is not None:
            return own
    return last


def structure_of_undo(diff: Diff, base: Checkpoint | None) -> Structure | None:
    """The base's structure: the result's own where they are the same, else kept if the base is there."""
    of_result = diff.manifest.structure
    if of_result is not None and of_result.content is None:
        return of_result
    found = None if base is None else _described(base)
    return None if found is None else found[0]


def _described(checkpoint: Checkpoint) -> tuple[Structure, list[str]] | None:
    """A checkpoint's structure with its content, and what of it cannot be kept; None if it is not HDF5."""
    found = checkpoint.structure()
    if found is None:
        return None
    content = to_content(found[0])
    return Structure(short_digest(to_canonical(content)), content), found[1]

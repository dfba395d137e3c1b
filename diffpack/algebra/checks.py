"""What must be true of diffs before they are worked on together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff
from diffpack.diff.extent import other_names
from diffpack.diff.links import diffs_beside, place_in_chain, what_would_follow
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.support.names import printable
from diffpack.tensors.rename import own_names


def check_chain(diffs: Sequence[Diff]) -> None:
    """Raise `UsageError` if a diff has lossy values, `WrongBaseError` if one is not made on the result before it."""
    if not diffs:
        raise UsageError("no diff to compose")
    for diff in diffs:
        check_exact(diff, "composed")
    for at, (before, diff) in enumerate(pairwise(diffs)):
        result, base = before.manifest.result.fingerprint, diff.manifest.base.fingerprint
        if result != base:
            told = what_would_follow(diffs, before, diff)
            raise WrongBaseError(
                f"{diff.name}: not made on the result of {before.name} (diff {at + 2} of {len(diffs)}): "
                f"its base is {base}, that result {result}{told and f'; {told}'}",
                hint="`diffpack inspect DIFF` shows each one's base and result: name them in the order they were made",
            )


def check_exact(diff: Diff, verb: str) -> None:
    """Raise `UsageError` if a diff has lossy values.

    One that is called lossy for another reason (an adapter's sums, made here and stored as steps) has none.
    """
    steps = diff.manifest.result.fingerprint is not None and all(record.exact for record in diff.values())
    if not diff.exact and not steps:
        raise UsageError(f"{diff.name}: lossy; only exact diffs can be {verb}, since their steps are all there is")


def check_base(diff: Diff, base: Checkpoint, threads: int | None, chain: Sequence[Diff] = ()) -> None:
    """Raise `WrongBaseError` if a checkpoint is not a diff's base, or lacks tensors that the diff needs of it.

    Raises `CorruptFileError` (A3, A4, A5) if it speaks of tensors that its own base has not.

    It says where in the chain of the diffs given with it, and of those beside it, the checkpoint stands, if it does.
    """
    expected, actual = diff.manifest.base.fingerprint, fingerprint(base, threads=threads)
    if expected != actual:
        beside = diffs_beside(diff)
        place = place_in_chain(diff, actual, [*chain, *beside])
        for item in beside:
            item.close()
        message = f"{base.source}: not the base of {diff.name} (fingerprint expected {expected}, found {actual})"
        raise WrongBaseError(f"{message}; {place}" if place else message + other_names(diff, base))
    check_names(diff, base)


def check_names(diff: Diff, base: Checkpoint) -> None:
    """Raise `CorruptFileError` (A3, A4, A5) for tensors that a forged diff speaks of and its own base has not.

    `WrongBaseError` as `Diff.view`.
    """
    manifest = diff.manifest
    view = diff.view(base)  # also what copies and slices are made of
    there = {*own_names(base.tensors, manifest.rename), *(manifest.copies or {}), *(manifest.slices or {})}
    removed = [(name, "removes", "A3") for name in manifest.removed]
    for name, what, rule in [*removed, *((name, "changes", "A4") for name in diff if diff[name].base is not None)]:
        if name not in there:
            raise CorruptFileError(f"{diff.name}: {what} {printable(name)}, which its base has not", rule)
    for name, target in manifest.aliases.items():
        if target not in diff and target not in view:
            raise CorruptFileError(f"{diff.name}: the alias {printable(name)!r} leads to no tensor", "A5")

"""One fine-tune that fuses what another keeps apart: merged, they would stand beside each other, not be merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffpack.algebra.merge.structure import Wishes
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable
from diffpack.tensors.rename import own_names


def refuse_mixed_forms(diffs: Sequence[Diff], base: Checkpoint, wishes: Wishes) -> None:
    """Raise `UsageError` if a diff has a tensor in the place of base tensors that another one keeps.

    Such a tensor is made of slices of those, which are gone (a fused matrix of its parts, or parts of a fused one). The
    result would have both, each with the changes of some diffs. Tensors that are excluded do no harm.
    """
    views = [own_names(base.tensors, diff.manifest.rename) for diff in diffs]
    removed = [
        {view[name] for name in diff.manifest.removed if name in view} for diff, view in zip(diffs, views, strict=True)
    ]
    for diff, view, lost in zip(diffs, views, removed, strict=True):
        for name, assembly in sorted((diff.manifest.slices or {}).items()):
            gone = {view[source] for source in assembly.sources} & lost
            if not wishes.excludes(name):
                _refuse_kept(diff, name, gone, zip(diffs, removed, strict=True))


def _refuse_kept(diff: Diff, name: str, gone: set[str], others: Iterable[tuple[Diff, set[str]]]) -> None:
    """Raise `UsageError` if one of the others, each with what it removes, keeps some of what is `gone` for a diff."""
    for other, removed in others:
        kept = sorted(gone - removed)
        if kept:
            which = listed([printable(own) for own in kept])
            raise UsageError(
                f"{diff.name}: {printable(name)} takes the place of {which}, which {other.name} keeps: merged, "
                "the model would have both, each with the changes of one; save these fine-tunes in the same "
                "form, all fused or all in parts, and extract their diffs again"
            )

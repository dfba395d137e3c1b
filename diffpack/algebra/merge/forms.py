"""One fine-tune that fuses what another keeps apart: merged, they would stand beside each other, not be merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    for diff in diffs:
        for name, gone in _in_place_of(diff, base):
            if wishes.excludes(name):
                continue
            for other in diffs:
                kept = sorted(gone - _removed(other, base))
                if kept:
                    which = listed([printable(own) for own in kept])
                    raise UsageError(
                        f"{diff.name}: {printable(name)} takes the place of {which}, which {other.name} keeps: merged, "
                        "the model would have both, each with the changes of one; save these fine-tunes in the same "
                        "form, all fused or all in parts, and extract their diffs again"
                    )


def _in_place_of(diff: Diff, base: Checkpoint) -> Iterator[tuple[str, set[str]]]:
    """The tensors of a diff made of slices, and which of the base's (its own names) are gone for them."""
    own = own_names(base.tensors, diff.manifest.rename)
    removed = _removed(diff, base)
    for name, assembly in sorted((diff.manifest.slices or {}).items()):
        yield name, {own[source] for source in assembly.sources} & removed


def _removed(diff: Diff, base: Checkpoint) -> set[str]:
    """The base's tensors that the result lacks, by the base's own names."""
    own = own_names(base.tensors, diff.manifest.rename)
    return {own[name] for name in diff.manifest.removed if name in own}

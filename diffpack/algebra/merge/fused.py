"""Fine-tunes of one base, of which some libraries fused or split tensors that others left as they are."""

from __future__ import annotations

from collections.abc import Sequence

from diffpack.algebra.merge.structure import Wishes
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.errors import UsageError
from diffpack.support.names import listed, printable
from diffpack.tensors.rename import own_names


def refuse_fused_beside_parts(diffs: Sequence[Diff], base: Checkpoint, wishes: Wishes) -> None:
    """Raise `UsageError` if a diff makes a tensor of others, which it removes, and which another diff keeps.

    The merge would have both, one with each diff's changes: a model that no library has. Tensors that `wishes` exclude
    are not made.
    """
    views = [own_names(base.tensors, diff.manifest.rename) for diff in diffs]
    removed = [{view[name] for name in diff.manifest.removed} for diff, view in zip(diffs, views, strict=True)]
    for diff, view, gone in zip(diffs, views, removed, strict=True):
        for name, assembly in sorted((diff.manifest.slices or {}).items()):
            if name in view or wishes.excludes(name):
                continue
            parts = [view[source] for source in assembly.sources if view[source] in gone]
            for other, others in zip(diffs, removed, strict=True):
                if kept := [part for part in parts if part not in others]:
                    raise UsageError(
                        f"{diff.name} makes {printable(name)} of {listed([printable(part) for part in kept])}, which "
                        f"{other.name} keeps, and the merge would have both: take the diffs of checkpoints that have "
                        "the same names, as one library saves them"
                    )

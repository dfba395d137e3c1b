"""Another base, as a diff that is carried over to it sees it: its tensors under the diff's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.base import digests_of
from diffpack.diff.diff import Diff
from diffpack.diff.record import TensorDiff
from diffpack.errors import UsageError
from diffpack.result.overflow import not_finite
from diffpack.tensors.digests import DIGEST_BYTES
from diffpack.tensors.info import TensorInfo, blocks
from diffpack.tensors.prefix_search import find_rename
from diffpack.tensors.reference import Reference, convert
from diffpack.tensors.rename import Rename, compose_rename, own_names
from diffpack.tensors.undo_rename import base_names


@dataclass(frozen=True)
class OtherBase:
    """The rules that lead from its names to the diff's, its tensors under these, and all digests by its own names."""

    checkpoint: Checkpoint
    rename: Rename
    view: Mapping[str, str]
    digests: Mapping[str, bytes]

    @classmethod
    def find(cls, diff: Diff, base: Checkpoint | None, onto: Checkpoint, threads: int | None) -> Self:
        """Look at a checkpoint as the other base of a diff, whose own base may be at hand."""
        rename = _rename(diff, base, onto)
        return cls(onto, rename, own_names(onto.tensors, rename), digests_of(onto, onto.tensors, threads))

    def info(self, name: str) -> TensorInfo | None:
        """Dtype and shape of a tensor, None if there is none."""
        return self.checkpoint.info(self.view[name]) if name in self.view else None

    def digest(self, name: str) -> bytes:
        """A tensor's digest, as a diff keeps it."""
        return self.digests[self.view[name]][:DIGEST_BYTES]

    def reference(self, record: TensorDiff) -> Reference:
        """What a record's changes are relative to here."""
        words = None if record.base is None else self.checkpoint.word_source(self.view[record.name])
        return Reference(record.info, record.base, words)

    def overflows(self, record: TensorDiff) -> bool:
        """Whether the tensor has finite entries that are infinite in the dtype the record gives it."""
        assert record.base is not None
        source, target = record.base.dtype, record.info.dtype
        if source == target:
            return False
        words = self.checkpoint.word_source(self.view[record.name])
        parts = (words[start:stop] for start, stop in blocks(words.size))
        return any(
            (not_finite(convert(part, source, target), target) & ~not_finite(part, source)).any() for part in parts
        )


def _rename(diff: Diff, base: Checkpoint | None, onto: Checkpoint) -> Rename:
    """The rules from the other base's names to the diff's: its own, unless others find more of its tensors."""
    own = diff.manifest.rename
    wanted = {name: record.base for name, record in diff.items() if record.base is not None}

    def found(rules: Rename) -> int:
        try:
            view = own_names(onto.tensors, rules)
        except UsageError:
            return -1
        return sum(name in view and onto.info(view[name]) == info for name, info in wanted.items())

    if found(own) == len(wanted):
        return own
    of_base = base.tensors if base is not None else {base_names(name, own)[0]: info for name, info in wanted.items()}
    others = [find_rename(onto.tensors, wanted), compose_rename(find_rename(onto.tensors, of_base), own)]
    return max([own, *others], key=found)  # of equals the first

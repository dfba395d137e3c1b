"""The tensors a diff changes, as formats want them that hold the values reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from diffpack.bridges.bridge import Export
from diffpack.checkpoints import TensorInfo
from diffpack.codecs.positions.gaps import Positions
from diffpack.compose import check_base
from diffpack.diff import Diff
from diffpack.dtypes import Words
from diffpack.errors import ResultMismatchError, UsageError
from diffpack.fingerprint import combine, digests_of, tensor_digest
from diffpack.names import listed, printable
from diffpack.result import Result


@dataclass(frozen=True)
class ChangedTensor:
    """A tensor before and after: dtype and shape are the same, some words are not."""

    name: str
    info: TensorInfo
    before: Words
    after: Words

    @property
    def positions(self) -> Positions:
        """Sorted flat positions of the words that differ, by their bits."""
        return np.flatnonzero(self.before != self.after)


def changed_tensors(job: Export) -> Iterator[ChangedTensor]:
    """Give every tensor whose bits the job's diff changes, in order of name, one at a time.

    Checks the base before the first and the result after the last. Raises `WrongBaseError`, `UsageError` for what
    only a diff can say (tensors new, removed, renamed, resized or retyped), `ResultMismatchError`.
    """
    base, diff = job.needed_base, job.diff
    check_base(diff, base, job.threads)
    refuse_structure(job, diff)
    result = Result(diff, base)
    digests = digests_of(base, base.tensors, job.threads)
    for name in sorted([*diff, *diff.manifest.aliases]):
        info = result.tensors[name]
        after = np.empty(info.words, info.dtype.word)
        for start, words in result.blocks(name):
            after[start : start + words.size] = words
        digests[name] = tensor_digest(after)
        tensor = ChangedTensor(name, info, base.words(name), after)
        if tensor.positions.size:
            yield tensor
    found, expected = combine(base.tensors, digests), diff.manifest.result.fingerprint
    if expected not in (None, found):
        raise ResultMismatchError(f"{diff.name}: gave the result {found}, but records {expected}")


def refuse_structure(job: Export, diff: Diff) -> None:
    """Raise `UsageError` if the diff does more than change entries of the base's tensors."""
    manifest = diff.manifest
    base = job.needed_base.tensors
    reasons = [f"{printable(name)} is removed" for name in manifest.removed]
    reasons += [f"{printable(name)} is {record.kind}" for name, record in diff.items() if record.kind != "changed"]
    for name, target in manifest.aliases.items():
        info = diff[target].info if target in diff else base.get(target)
        if base.get(name) != info:
            reasons.append(f"{printable(name)} is tied to {printable(target)}, which is of another shape, or new")
    if manifest.rename:
        reasons.insert(0, "tensors are renamed")
    if reasons:
        raise UsageError(f"{diff.name}: {job.format} can only say which entries change, but {listed(reasons)}")


def note_left_out(job: Export) -> None:
    """Note what formats that hold nothing but tensors leave behind."""
    manifest = job.diff.manifest
    left = [
        what
        for what, there in (
            ("side files", manifest.files),
            ("the layout of the tuned files", manifest.layout),
            ("notes", manifest.metadata),
        )
        if there
    ]
    if left:
        job.notes.append(f"{job.format} does not carry {', '.join(left)}")


def entries_of(info: TensorInfo) -> int:
    """Count a tensor's entries."""
    return prod(info.shape)

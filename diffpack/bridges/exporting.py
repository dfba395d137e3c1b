"""The tensors a diff changes, as formats want them that hold the values reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from diffpack.algebra.checks import check_base
from diffpack.bridges.bridge import Export
from diffpack.checkpoints.base import digests_of
from diffpack.errors import ResultMismatchError, UsageError
from diffpack.result.result import Result
from diffpack.support.names import listed, printable
from diffpack.tensors.digests import combine, tensor_digest
from diffpack.tensors.dtypes import Positions, Words
from diffpack.tensors.info import TensorInfo


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
    """Every tensor whose bits the job's diff changes, in order of name, one at a time.

    Checks the base before the first and, if nothing is left out, the result after the last. Raises `WrongBaseError`,
    `UsageError` for what only a diff can say, unless that is to be left out, `ResultMismatchError`.
    """
    base, diff = job.needed_base, job.diff
    check_base(diff, base, job.threads)
    left_out = beyond_entries(job)
    result = Result(diff, base)
    digests = digests_of(base, base.tensors, job.threads)
    for name in sorted({*diff, *diff.manifest.aliases} - left_out.keys()):
        info = result.tensors[name]
        after = np.empty(info.words, info.dtype.word)
        for start, words in result.blocks(name):
            after[start : start + words.size] = words
        digests[name] = tensor_digest(after)
        tensor = ChangedTensor(name, info, base.words(name), after)
        if tensor.positions.size:
            yield tensor
    actual, expected = combine(base.tensors, digests), diff.manifest.result.fingerprint
    if not left_out and expected not in (None, actual):
        raise ResultMismatchError(f"{diff.name}: gave the result {actual}, but records {expected}")


def beyond_entries(job: Export) -> dict[str, str]:
    """The tensors the diff does more to than change entries, and what: these are left out.

    Raises `UsageError` if there are any and the option `partial` does not say so, or if tensors are renamed.
    """
    diff, base, partial = job.diff, job.needed_base.tensors, is_partial(job)
    manifest = diff.manifest
    beyond = dict.fromkeys(manifest.removed, "removed")
    beyond |= {name: record.kind for name, record in diff.items() if record.kind != "changed"}
    for name, target in manifest.aliases.items():
        info = diff[target].info if target in diff else base.get(target)
        if base.get(name) != info:
            beyond[name] = f"tied to {printable(target)}, which is of another shape or dtype, or new"
    what = listed([f"{printable(name)} is {kind}" for name, kind in sorted(beyond.items())])
    if manifest.rename:
        raise UsageError(f"{diff.name}: {job.format} can only say which entries change, but tensors are renamed")
    if beyond and not partial:
        raise UsageError(
            f"{diff.name}: {job.format} can only say which entries change, but {what} (the option partial=yes leaves "
            "such tensors out, and the output is lossy)"
        )
    return beyond


def is_partial(job: Export) -> bool:
    """Tell whether what the format cannot say is to be left out. Raises `UsageError` for other words."""
    answer = job.options.get("partial", "no")
    if answer not in ("yes", "no"):
        raise UsageError(f"partial is yes or no, not {answer!r}")
    return answer == "yes"


PARTIAL = {"partial": "yes: leave out tensors that are new, removed, resized or retyped; the output is then lossy"}
"""The option of formats that know changed entries only."""


def finished(job: Export) -> bool:
    """Note what was left behind; tell whether the output gives the diff's result bit for bit."""
    left_out = beyond_entries(job)
    if left_out:
        what = listed([f"{printable(name)} ({kind})" for name, kind in sorted(left_out.items())])
        job.notes.append(f"left out, so the output is lossy: {what}")
    note_left_out(job)
    return not left_out


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

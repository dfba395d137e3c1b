"""A diff applied to tensors in memory, where they lie: all of it or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpack.diff.diff import DiffLike, open_diff
from diffpack.errors import UsageError, WrongBaseError
from diffpack.live.overlaps import overlapping
from diffpack.live.shared_memory import is_shared
from diffpack.live.states.becoming import Becoming, Change
from diffpack.live.states.state import State, TensorsLike
from diffpack.live.words import TensorWords
from diffpack.result import overflow
from diffpack.result.wrong_base import told_where
from diffpack.support.blas import single_threaded_products
from diffpack.support.names import printable


@dataclass(frozen=True)
class AppliedInPlace:
    """What `apply_` did: which tensors it wrote, by the model's names, and how many words of them.

    `fingerprint` is that of the diff's whole result, as recorded (None: nobody knows it); `left` names tensors that the
    result lacks and the model still has; `notes` are remarks for people.
    """

    tensors: tuple[str, ...]
    words: int
    fingerprint: str | None
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def apply_(
    tensors: TensorsLike, diff: DiffLike, *, base_fingerprint: str | None = None, threads: int | None = None
) -> AppliedInPlace:
    """Make a module, its `state_dict()`, or tensors of torch by name, the result of a diff, in place.

    Parameters keep their identity and storage, and only words that change are written. Everything is checked and
    decoded before the first word is written; if writing fails, what was written is put back. Afterwards the way back
    is another diff (`diffpack.invert`, made before or after), or the task switcher, which keeps what it writes over.

    Each tensor that changes is checked by its digests, before and after; the others are not looked at, unless the diff
    makes tensors of them, which the fingerprint of all alone tells to be right. For this, tensors on other devices come
    here whole. Who knows what the model is (it loaded just that, or applied the diff before this one) gives
    `base_fingerprint`: it is compared with the one the diff records, the digests are not, and only changed words
    travel, both ways, unless records are coded against the base.

    Names may have other prefixes than the diff's, as for `diffpack.load`. New tensors are written where the model has
    one of that name, dtype and shape. What the result lacks is left as it is, and named. Nobody may write meanwhile.

    Raises `WrongBaseError`; `UsageError` for what has no place, or another dtype or shape there, for memory that models
    share (`is_shared`), and for tensors that share a part of their memory; `CorruptFileError`, `ResultMismatchError`.
    """
    opened, state = open_diff(diff), State(tensors)
    expected = opened.manifest.base.fingerprint
    if base_fingerprint not in (None, expected):
        given = f"(fingerprint expected {expected}, given {base_fingerprint}) [A1]"
        raise WrongBaseError(f"{state.source}: not the base of {opened.name} {given}")
    factored = any(group.factors is not None for group in opened.manifest.groups)
    with told_where(opened, state, threads), single_threaded_products() if factored else nullcontext():
        work = Becoming(opened, state, known=base_fingerprint is not None)
        changes = work.changes(threads)
    _refuse_common_memory(state, list(changes))
    _write([(state.writable(own), change) for own, change in changes.items()])
    infinite = {name: change.infinite for name, change in changes.items() if change.infinite}
    removed = tuple(own for name in opened.manifest.removed if (own := work.view.own.get(name)) is not None)
    return AppliedInPlace(
        tuple(changes),
        sum(change.words.size for change in changes.values()),
        opened.manifest.result.fingerprint,
        removed,
        (overflow.remark(infinite),) if infinite else (),
    )


def _refuse_common_memory(state: State, written: Sequence[str]) -> None:
    """Raise `UsageError` if what is to be written is also that of other models, or a part of another tensor."""
    common = overlapping({own: tensor for own, tensor in state.given.items() if own not in state.ties})
    for own in written:
        if is_shared(state.given[own]):
            raise UsageError(
                f"{state.source}: {printable(own)} lies in memory that other models share: load the model with "
                "from_pretrained(..., share=False)"
            )
        if own in common:
            raise UsageError(
                f"{state.source}: {printable(own)} and {printable(common[own])} share a part of their memory: a diff "
                "cannot write one without the other"
            )


def _write(changes: Sequence[tuple[TensorWords, Change]]) -> None:
    """Write all changes, or none: what is to be written is on its device before the first word is."""
    ready = []
    for memory, change in changes:
        index = None if change.positions is None else memory.index(change.positions)
        ready.append((memory, index, memory.integers(change.words)))
    written: list[tuple[TensorWords, Tensor | None, Tensor]] = []
    try:
        with torch.no_grad():
            for memory, index, words in ready:
                written.append((memory, index, memory.gather(index)))
                memory.scatter(index, words)
    except BaseException:
        with torch.no_grad():
            for memory, index, before in reversed(written):
                memory.scatter(index, before)
        raise

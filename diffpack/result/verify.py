"""verify: every checksum and rule of a diff; with the base, that applying it arrives at the recorded result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, open_diff
from diffpack.diff.layout import check_blob, recorded_layout
from diffpack.diff.sidefiles import side_content
from diffpack.result.apply import check_result
from diffpack.result.recorded_files import check_recorded_files
from diffpack.result.result import Result
from diffpack.result.signature import signed_as_asked
from diffpack.result.wrong_base import told_where
from diffpack.support.memory import memory_told
from diffpack.support.parallel import run_in_order, thread_count

if TYPE_CHECKING:
    from diffpack.signing.checking import SignatureWanted, Signed


@dataclass(frozen=True)
class Verified:
    """What was checked: chunks, records, and the result's fingerprint if there was a whole base (else None).

    `sealed` says whether the diff records that fingerprint. `part` is True if the base was a model in memory that is
    not all of it: then every record was applied, and the tensors it changes compared with their digests, nothing else.
    `signed` says who signed the diff, where that was asked for.
    """

    chunks: int
    records: int
    exact: bool
    result: str | None
    sealed: bool = True
    part: bool = False
    signed: Signed | None = None


@memory_told
def verify(
    diff: DiffLike,
    base: CheckpointLike | None = None,
    *,
    require_signature: SignatureWanted = None,
    threads: int | None = None,
) -> Verified:
    """Check all of a diff, its signature first if one is asked for (`RequiredSignature`, or just its signers).

    Raises `CorruptFileError` or `UnsupportedFormatError` at the first rule that is broken, `WrongBaseError` if
    `base` is not its base, `SignatureError`, `ResultMismatchError` if applying it gives other bits than recorded.
    """
    opened = open_diff(diff)
    signed = signed_as_asked(opened, require_signature)
    check_chunks(opened, threads)
    fingerprint, part = None, False
    if base is not None:
        checkpoint = open_checkpoint(base)
        with told_where(opened, checkpoint, threads):
            result = Result(opened, checkpoint, threads=threads)
            check = result.run(None, threads=threads)
        check_result(opened, check)
        part = not result.extent.whole
        layout = None if part else recorded_layout(result.diff, result.base, result.tensors)
        if layout is not None:
            check_recorded_files(result, *layout)
        fingerprint = check.result
    sealed = opened.manifest.result.fingerprint is not None
    return Verified(len(opened.chunks), len(opened), opened.exact, fingerprint, sealed, part, signed)


_NUMBERS_AT_ONCE = 1 << 23
"""Numbers that are decoded at once by all threads: 64 MB of positions. Chunks of real diffs have up to 2^20."""


def _bounded(diff: Diff, threads: int | None) -> int:
    """So many threads that they need no more memory, whatever a diff's chunks hold."""
    largest = max((chunk.numbers for chunk in diff.chunks[: diff.coded_chunks]), default=0)
    most = max(1, _NUMBERS_AT_ONCE // max(1, largest))
    return min(thread_count(threads), most)


def check_chunks(diff: Diff, threads: int | None = None) -> None:
    """Decode every chunk. Raises `CorruptFileError`."""
    spans = (partial(decoder.check, span) for decoder in diff.decoders for span in range(len(decoder.group.ends)))
    for _ in run_in_order(spans, _bounded(diff, threads)):
        pass  # decoding is the check; what it gives is not kept
    for decoder in diff.decoders:
        if decoder.group.names:
            decoder.scale(0)
        decoder.check_factors()
    for item in diff.manifest.files:
        if item.stored:
            side_content(diff, item)
    layout = diff.manifest.layout
    if layout is not None and layout.stored:
        check_blob(diff, layout)

"""Diffs that compare tensors with other base tensors, or slices of them, written so that all go by their own names.

The algebra and the bridges think in names: what one diff says of a tensor meets what another says of it. A diff with
copies or slices is written anew for them, in a temporary file, with the same result bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO

import numpy as np

from diffpack.algebra.checks import check_base
from diffpack.algebra.kept import kept_entry, kept_recipe, whole_groups
from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.entries import Entry, exact_entry, write_entries
from diffpack.diff.publish import write_for
from diffpack.diff.stored_chunks import copy_chunks
from diffpack.diff.summary import new_manifest
from diffpack.errors import BaseNeededError, ResultMismatchError
from diffpack.format.features import UNSEALED
from diffpack.format.manifest import to_json
from diffpack.format.writer import ContainerWriter
from diffpack.result.result import Result
from diffpack.support.inputs import Inputs
from diffpack.support.names import listed, printable
from diffpack.support.parallel import run_in_order
from diffpack.tensors.digests import DIGEST_BYTES
from diffpack.tensors.dtypes import Words
from diffpack.tensors.info import TensorInfo
from diffpack.tensors.rename import own_names


def by_own_names(diff: Diff, base: Checkpoint | None, threads: int | None) -> Diff:
    """A diff with the same base and result, and no copies and slices: the diff itself if it has none.

    A tensor that was copied or made of slices is stored exactly as the diff gives it, lossy values or not, relative to
    the base tensor of its own name where that can serve, else as a new one. Lossy values of other tensors stay; those
    on a grid, and low-rank factors, become float32 values if one of their group was such a tensor.

    Raises `BaseNeededError` if the base is needed and is not there, `WrongBaseError` if it is another one,
    `ResultMismatchError` if such a tensor is not the recorded one, `CorruptFileError`.
    """
    if not _elsewhere(diff):
        return diff
    return _resolved(diff, _needed(diff, base, threads), threads)


def chain_by_own_names(diffs: Sequence[Diff], base: Checkpoint | None, threads: int | None) -> list[Diff]:
    """The same for diffs each of which is made on the result of the one before; `base` is the first one's.

    Raises as `by_own_names` does; whether each is made on that result is for the caller to check.
    """
    last = max((at for at, diff in enumerate(diffs) if _elsewhere(diff)), default=-1)
    if last < 0:
        return list(diffs)
    before = _needed(diffs[last], base, threads, diffs[0])
    made: list[Diff] = []
    for diff in diffs[: last + 1]:
        made.append(_resolved(diff, before, threads) if _elsewhere(diff) else diff)
        before = _ResultCheckpoint(Result(diff, before))
    return [*made, *diffs[last + 1 :]]


def _elsewhere(diff: Diff) -> dict[str, list[str]]:
    """The tensors that are compared with others than those of their name -> these."""
    manifest = diff.manifest
    copies = {name: [source] for name, source in (manifest.copies or {}).items()}
    return copies | {name: assembly.sources for name, assembly in (manifest.slices or {}).items()}


def _some(sources: Sequence[str]) -> str:
    return printable(sources[0]) + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")


def _needed(diff: Diff, base: Checkpoint | None, threads: int | None, first: Diff | None = None) -> Checkpoint:
    if base is None:
        which = listed(
            [f"{printable(name)} from {_some(sources)}" for name, sources in sorted(_elsewhere(diff).items())]
        )
        raise BaseNeededError(f"{diff.name}: makes tensors from base tensors of other names ({which}): give the base")
    check_base(diff if first is None else first, base, threads)
    return base


class _ResultCheckpoint(Checkpoint):
    """The result of a diff on its base, each tensor made when it is asked for."""

    layout = "result"

    def __init__(self, result: Result) -> None:
        super().__init__(f"the result of {result.diff.name}")
        self._result = result

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._result.tensors

    def words(self, name: str) -> Words:
        """A tensor's words, made anew; takes its memory."""
        return _words(self._result, name)


def _words(result: Result, name: str) -> Words:
    info = result.tensors[name]
    words = np.empty(info.words, info.dtype.word)
    for start, block in result.blocks(name):
        words[start : start + block.size] = block
    return words


def _resolved(diff: Diff, base: Checkpoint, threads: int | None) -> Diff:
    return write_for(diff, Inputs(base.files), partial(_write, diff=diff, base=base, threads=threads))


def _write(file: BinaryIO, diff: Diff, base: Checkpoint, threads: int | None) -> None:
    manifest, writer = diff.manifest, ContainerWriter(file)
    groups, others = [], {*diff, *_elsewhere(diff)}
    for decoder in whole_groups(diff, _elsewhere(diff)):
        copy_chunks(writer, diff, decoder.chunks)
        groups.append(decoder.group)
        others -= set(decoder.group.names)
    groups += write_entries(writer, _entries(diff, base, others, threads), "compact", threads=threads)
    copy_chunks(writer, diff, range(diff.coded_chunks, len(diff.chunks)))  # the layout and the side files
    resolved = new_manifest(
        manifest.base,
        manifest.result,
        groups,
        exact=manifest.exact,
        metadata=manifest.metadata,
        recipe=kept_recipe(manifest.recipe, groups),
        aliases=manifest.aliases,
        removed=manifest.removed,
        rename=manifest.rename,
        layout=manifest.layout,
        files=manifest.files,
        structure=manifest.structure,
        requires=(UNSEALED,) if UNSEALED in manifest.requires else (),
    )
    writer.finish(to_json(resolved))


def _entries(diff: Diff, base: Checkpoint, names: Collection[str], threads: int | None) -> Iterator[Entry]:
    result, others = Result(diff, base), _elsewhere(diff)
    own = own_names(base.tensors, diff.manifest.rename)
    jobs = (
        partial(_made_anew, result, name, own.get(name))
        if name in others
        else partial(kept_entry, diff, result.records[name], name)
        for name in sorted(names)
    )
    for entry in run_in_order(jobs, threads):
        if entry.name not in others or not entry.unchanged:
            yield entry


def _made_anew(result: Result, name: str, own: str | None) -> Entry:
    """The exact record of such a tensor's result, relative to the base tensor of its own name, if there is one."""
    base = result.base
    before = None if own is None else (base.info(own), base.words(own))
    entry = exact_entry(name, result.tensors[name], _words(result, name), before)
    recorded = result.diff.digests(name)[1] if name in result.diff else None
    if recorded is not None and (entry.digest or b"")[:DIGEST_BYTES] != recorded:
        raise ResultMismatchError(f"{result.diff.name}: {printable(name)} is not what the diff records [A6]")
    return entry

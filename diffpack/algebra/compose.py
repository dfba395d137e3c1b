"""compose: a chain of exact diffs -> the one exact diff from the first base to the last result.

Steps are integers modulo 2^w, so a chain of changes is their sum, and no model in between is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO

from diffpack.algebra.chain import Chain
from diffpack.algebra.checks import check_base, check_chain
from diffpack.algebra.lifted import lifted
from diffpack.algebra.resolve import chain_by_own_names
from diffpack.algebra.squash import squash
from diffpack.algebra.trace import Lineage, Trace, trace
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.diff.diff import Diff, DiffLike, files_behind, open_diffs
from diffpack.diff.entries import Entry, check_profile, write_entries
from diffpack.diff.layout import inherited_layout
from diffpack.diff.publish import write_diff
from diffpack.diff.sidefiles import inherited_files
from diffpack.diff.structure import inherited_structure
from diffpack.diff.summary import LEFT_OUT, new_manifest
from diffpack.errors import BaseNeededError
from diffpack.format.manifest import to_json
from diffpack.format.writer import ContainerWriter
from diffpack.support.inputs import Inputs
from diffpack.support.memory import memory_told
from diffpack.support.names import listed, printable
from diffpack.support.parallel import Progress, run_in_order


@memory_told
def compose(
    diffs: DiffLike | Sequence[DiffLike],
    output: str | os.PathLike[str] | None = None,
    *,
    base: CheckpointLike | None = None,
    profile: str = "compact",
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Squash exact diffs, each made on the result of the one before, into one exact diff with the same result.

    Needs no base unless a diff is coded against its base (`profile="smallest"`), or what happened to a tensor cannot
    be said without it (changed and then rounded, cut and grown again, tied and then changed: docs/algebra.md).
    `metadata` is by default the last diff's. With `output` the file is written there, else it is a temporary one.

    Raises `UsageError` (lossy values, no diff at all), `WrongBaseError` (a diff that is not made on the result of the
    one before; `base` is not the first one's), `BaseNeededError`, `CorruptFileError`.
    """
    check_profile(profile)
    chain = open_diffs(diffs)
    checkpoint = None if base is None else open_checkpoint(base)
    inputs = Inputs(files_behind(chain, checkpoint))
    check_chain(chain)
    if checkpoint is not None:
        check_base(chain[0], checkpoint, threads, chain[1:])
    notes = dict(chain[-1].metadata if metadata is None else metadata)
    write = partial(_write, profile=profile, notes=notes, threads=threads, progress=progress)
    lift = None if any(_renames(diff) for diff in chain[1:]) else lifted(chain[:1], checkpoint, threads)
    if lift is not None:
        whole = write_diff(None, inputs, False, partial(write, chain=[*lift.diffs, *chain[1:]], base=lift.base))
        return write_diff(output, inputs, force, partial(lift.write_lowered, diff=whole))
    chain = chain_by_own_names(chain, checkpoint, threads)
    return write_diff(output, inputs, force, partial(write, chain=chain, base=checkpoint))


def _renames(diff: Diff) -> bool:
    """Whether a diff calls tensors otherwise than its base does, or makes them of others."""
    manifest = diff.manifest
    return bool(manifest.rename or manifest.copies or manifest.slices)


def _write(
    file: BinaryIO,
    chain: Sequence[Diff],
    base: Checkpoint | None,
    profile: str,
    notes: dict[str, str],
    threads: int | None,
    progress: Progress | None,
) -> None:
    state = trace(chain, None if base is None else base.tensors)
    removed = _removed(state)
    stored, aliases = _split(state)
    links = Chain(chain, state, base)
    writer = ContainerWriter(file)
    total = sum(links.info(lineage).nbytes for lineage in stored.values())
    entries = _entries(links, stored, threads)
    groups = write_entries(writer, entries, profile, threads=threads, progress=progress, total=total)
    layout = inherited_layout(writer, chain, profile)
    files = inherited_files(writer, chain, profile)
    said = chain[-1].manifest.recipe
    manifest = new_manifest(
        chain[0].manifest.base,
        chain[-1].manifest.result,
        groups,
        exact=all(diff.exact for diff in chain),
        metadata=notes,
        recipe={"composed": f"of {len(chain)}"} | {key: said[key] for key in (LEFT_OUT,) if key in said},
        aliases=aliases,
        removed=removed,
        rename=state.rename,
        layout=layout,
        files=files,
        structure=inherited_structure(chain),
    )
    writer.finish(to_json(manifest))


def _removed(state: Trace) -> tuple[str, ...]:
    doubtful = sorted(set(state.removed) & state.doubtful)
    if doubtful:
        which = listed([printable(name) for name in doubtful])
        raise BaseNeededError(
            f"{which}: added and removed again; give the base, which tells whether it had them before"
        )
    return tuple(state.removed)


def _split(state: Trace) -> tuple[dict[str, Lineage], dict[str, str]]:
    """Split tensors into those that are stored and those equal to another one; the untouched are in neither."""
    names: dict[Lineage, list[str]] = {}
    for name in sorted(state.known):
        lineage = state.known[name]
        if lineage is not None:
            names.setdefault(lineage, []).append(name)
    stored: dict[str, Lineage] = {}
    aliases: dict[str, str] = {}
    for lineage, equal in names.items():
        untouched = lineage.origin is not None and not lineage.records
        if untouched and lineage.origin not in equal and state.known.get(lineage.origin or "", lineage) == lineage:
            equal.insert(0, lineage.origin or "")  # a base tensor that nothing else speaks of
        first = lineage.origin if lineage.origin in equal else equal[0]
        assert first is not None
        if not (untouched and first == lineage.origin):
            stored[first] = lineage
        aliases |= {name: first for name in equal if name != first}
    return dict(sorted(stored.items())), aliases


def _entries(chain: Chain, stored: Mapping[str, Lineage], threads: int | None) -> Iterator[Entry]:
    """The records in order of name, without those that changes of later links undid."""
    jobs = (partial(squash, chain, name, lineage) for name, lineage in stored.items())
    for entry in run_in_order(jobs, threads):
        if not entry.unchanged:
            yield entry

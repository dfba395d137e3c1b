"""extract: two checkpoints -> a diff.

The data's way: pair the tensors, scan each pair (hash and compare), choose what to store, code it in chunks,
write the manifest. The file is written in one pass and read back through the ordinary reader.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from diffpack.atomic import atomic_file, refuse_overwriting
from diffpack.budget import Attempt, Forecast, Search, grade, weights
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.choose import choose, exact_records, float_entries, may_be_lossy, split_aliases
from diffpack.codecs.streams import FEATURES
from diffpack.codecs.values import SCALED
from diffpack.container.source import FileSource
from diffpack.container.table import encode_chunk
from diffpack.container.writer import ContainerWriter
from diffpack.diff import Diff, open_diff
from diffpack.distortion import MILLIONTHS, Distortion
from diffpack.encode import Record, span_jobs
from diffpack.errors import UsageError
from diffpack.fingerprint import DIGEST_BYTES, combine, digests_of
from diffpack.layout import keep_layout
from diffpack.manifest import CheckpointSummary, Group, Manifest, to_json
from diffpack.options import Options, Target
from diffpack.pairs import Pairing, pair_up
from diffpack.parallel import Progress, run_in_order
from diffpack.scan import Scan, scan
from diffpack.seal import sealed
from diffpack.select import Selection
from diffpack.sidefiles import keep_side_files


def extract(
    base: CheckpointLike,
    tuned: CheckpointLike,
    output: str | os.PathLike[str] | None = None,
    *,
    density: float | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    values: str = "exact",
    budget: int | str | None = None,
    target_error: float | None = None,
    importance: CheckpointLike | None = None,
    positions: str = "auto",
    profile: str = "compact",
    rename: Iterable[tuple[str, str]] | None = None,
    layout: bool = True,
    files: bool = True,
    sha256: bool = False,
    base_name: str | None = None,
    base_revision: str | None = None,
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Store `tuned` as its difference from `base`.

    By default the diff is exact: applying it gives every tensor back bit for bit, and for safetensors the file.
    Choosing entries (`density`: fraction of all float entries, `top_k`: how many, `threshold`: smallest
    |difference|) or a value coding other than "exact" makes it lossy; integer tensors, new tensors and tensors
    with differences that are not finite stay exact. The largest differences over the whole model are chosen.

    `budget` (bytes of the file: 500000, "1MB"; or "0.3%" of the base's bytes) and `target_error` (relative L2 error
    of the result) are met at the best point of rate and distortion found: the diff lands at most 1 % under them.
    `importance` weighs the squared error of tensors: a checkpoint whose tensors, by the tuned's names, hold a weight
    for the tensor or for each entry (a Fisher estimate, say), of which the mean counts.

    `positions` chooses how exact changes are stored: "auto" takes what is estimated to be smallest for each tensor.

    With `output` the file is written there in one pass; without, the diff lives in an unnamed temporary file.
    `rename` gives (old prefix, new prefix) rules for the base's names; None finds one by itself. `sha256` also
    records the tuned files' SHA-256. `metadata` is free text for people.

    Raises `CheckpointError`, `UsageError` (options that do not fit, an existing output without `force`).
    """
    base, tuned = open_checkpoint(base), open_checkpoint(tuned)
    options = Options(
        Selection(density, top_k, threshold), values, profile, positions, Target.of(budget, target_error, base.nbytes),
        weights(importance, tuned.tensors), None if rename is None else tuple(rename),
        layout, files, sha256, base_name, base_revision, threads,
    )  # fmt: skip
    notes = dict(metadata or {})
    if output is None:
        with tempfile.TemporaryFile() as file:
            _write(file, base, tuned, options, notes, progress)
            return Diff(FileSource.share(file, "diff in memory"))
    path = Path(output)
    inputs = [item for side in (base, tuned) for item in [*side.files, side.folder] if item is not None]
    refuse_overwriting(path, [item for item in inputs if item.is_file()], force)
    with atomic_file(path) as file:
        _write(file, base, tuned, options, notes, progress)
    return open_diff(path)


@dataclass(frozen=True)
class _Found:
    """What was found out about two checkpoints before anything is written."""

    base: Checkpoint
    tuned: Checkpoint
    pairing: Pairing
    scans: list[Scan]
    stored: list[Scan]
    aliases: dict[str, str]
    summaries: tuple[CheckpointSummary, CheckpointSummary]


def _write(
    file: BinaryIO,
    base: Checkpoint,
    tuned: Checkpoint,
    options: Options,
    metadata: dict[str, str],
    progress: Progress | None,
) -> None:
    pairing = pair_up(base.tensors, tuned.tensors, options.rename)
    scans = _scan_all(pairing, base, tuned, options.threads, progress)
    stored, aliases = split_aliases(scans)
    fingerprints = _fingerprints(scans, base, tuned, options.threads)
    summaries = (
        _summary(base, fingerprints[0], options.base_name, options.base_revision),
        _summary(tuned, fingerprints[1]),
    )
    found = _Found(base, tuned, pairing, scans, stored, aliases, summaries)
    if options.target is not None:
        _write_to_target(file, found, options, options.target, metadata, progress)
    else:
        _write_records(file, found, choose(stored, options, float_entries(scans)), options, metadata, progress)


def _write_to_target(
    file: BinaryIO,
    found: _Found,
    options: Options,
    target: Target,
    metadata: dict[str, str],
    progress: Progress | None,
) -> None:
    """Write the diff at one step after the other until it lands; end with the best one written."""
    graded = grade([item for item in found.stored if may_be_lossy(item, "grid")], options.importance)
    search = Search(target, Forecast(graded))
    own = {item.scan.pair.name for item in graded}
    rest = exact_records([item for item in found.stored if item.pair.name not in own], options)

    def write(step: float) -> Attempt:
        records = rest + [item.record(step) for item in graded]
        return _write_records(_emptied(file), found, records, options, metadata, progress, step)

    last = None
    while (step := search.next()) is not None:
        if last is None and search.nearly_exact(step):
            plain = replace(options, target=None)
            whole = _write_records(_emptied(file), found, choose(found.stored, plain, 0), plain, metadata, progress)
            if search.keeps(whole):
                return
        last = write(step)
        search.tell(last)
    best = search.best
    if best is None:
        raise UsageError(search.explain())
    if best is not last:
        write(best.step)


def _emptied(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    file.truncate()
    return file


def _write_records(
    file: BinaryIO,
    found: _Found,
    records: Sequence[Record],
    options: Options,
    metadata: dict[str, str],
    progress: Progress | None,
    step: float = 0.0,
) -> Attempt:
    """Write one whole file, in one pass; say what it came to."""
    writer = ContainerWriter(file)
    groups = _write_groups(writer, records, options, progress)
    grid_bytes = _bytes_of(writer, groups, "grid")
    kept_layout = keep_layout(writer, found.base, found.tuned, options)
    kept_files = keep_side_files(writer, found.base, found.tuned, options)
    codings = {group.positions for group in groups} | {group.values for group in groups}
    manifest = Manifest(
        base=found.summaries[0],
        result=found.summaries[1],
        exact=options.exact,
        groups=tuple(groups),
        aliases=found.aliases,
        removed=found.pairing.removed,
        rename=found.pairing.rename,
        layout=kept_layout,
        files=tuple(kept_files),
        metadata=metadata,
        recipe=_recipe(options),
        requires=tuple(sorted(codings & FEATURES.keys())),
    )
    if not options.exact:
        distortion = Distortion([record.scan for record in records])
        manifest = sealed(file, writer, manifest, found.base, options.threads, distortion)
    writer.finish(to_json(manifest))
    return Attempt(step, file.tell(), grid_bytes, (manifest.error or 0) / MILLIONTHS)


def _bytes_of(writer: ContainerWriter, groups: Sequence[Group], values: str) -> int:
    """Count the bytes of the chunks of groups with a value coding; they are the first ones written."""
    total = first = 0
    for group in groups:
        stop = first + len(group.ends) + (group.values in SCALED)
        if group.values == values:
            total += sum(chunk.nbytes for chunk in writer.chunks[first:stop])
        first = stop
    return total


def _scan_all(
    pairing: Pairing, base: Checkpoint, tuned: Checkpoint, threads: int | None, progress: Progress | None
) -> list[Scan]:
    """Scan every pair, largest first so that threads end together; give the scans in order of name."""
    order = sorted(range(len(pairing.pairs)), key=lambda at: -pairing.pairs[at].info.nbytes)
    total = sum(pair.info.nbytes for pair in pairing.pairs)
    scans: dict[int, Scan] = {}
    jobs = [lambda at=at: scan(pairing.pairs[at], base, tuned) for at in order]
    done = 0
    for at, found in zip(order, run_in_order(jobs, threads), strict=True):
        scans[at] = found
        done += found.pair.info.nbytes
        if progress is not None:
            progress("scanning", done, total)
    return [scans[at] for at in range(len(scans))]


def _write_groups(
    writer: ContainerWriter, records: Sequence[Record], options: Options, progress: Progress | None
) -> list[Group]:
    """Code the records group by group; give the groups as the manifest holds them."""
    groups = []
    total = sum(record.scan.pair.info.nbytes for record in records)
    before = 0
    ordered = sorted(records, key=lambda record: (record.key, record.scan.pair.name))
    for key, members in groupby(ordered, lambda record: record.key):
        group = list(members)
        nbytes = sum(record.scan.pair.info.nbytes for record in group)
        length = sum(record.scan.tuned.size for record in group)
        if group[0].values in SCALED:
            scales = np.array([record.scale for record in group], "<f4")
            writer.add(encode_chunk([scales.view("<u4")], options.profile))
        spans = list(span_jobs(group, options.profile))
        chunks = run_in_order((job for _, job in spans), options.threads)
        for (end, _), chunk in zip(spans, chunks, strict=True):
            writer.add(chunk)
            if progress is not None:
                progress("coding", before + nbytes * end // length, total)
        before += nbytes
        groups.append(_group(key, group, [end for end, _ in spans], options.exact))
    return groups


def _group(key: tuple[str, str, str, str], records: Sequence[Record], ends: list[int], exact: bool) -> Group:
    base, dtype, positions, values = key
    scans = [record.scan for record in records]
    return Group(
        dtype=dtype,
        base=base or None,
        positions=positions,
        values=values,
        names=tuple(item.pair.name for item in scans),
        shapes=tuple(item.pair.info.shape for item in scans),
        ends=tuple(ends),
        resized={item.pair.name: item.pair.base.shape for item in scans if item.pair.base and item.pair.resized},
        base_digests=_hex(item.base_digest for item in scans) if base else None,
        result_digests=_hex(item.digest for item in scans) if exact else None,
        counts=tuple(item.count for item in scans) if positions == "levels" and values == "exact" else None,
    )


def _hex(digests: Iterable[bytes | None]) -> str:
    return b"".join((digest or b"")[:DIGEST_BYTES] for digest in digests).hex()


def _fingerprints(scans: Sequence[Scan], base: Checkpoint, tuned: Checkpoint, threads: int | None) -> tuple[str, str]:
    """Give the fingerprints of both sides; base tensors that were in no pair are hashed here."""
    own = {item.pair.base_name: item.base_digest for item in scans if item.pair.base_name and item.base_digest}
    digests = own | digests_of(base, (name for name in base.tensors if name not in own), threads)
    tuned_digests = {item.pair.name: item.digest for item in scans}
    return combine(base.tensors, digests), combine(tuned.tensors, tuned_digests)


def _summary(
    checkpoint: Checkpoint, fingerprint: str, name: str | None = None, revision: str | None = None
) -> CheckpointSummary:
    entries = sum(prod(info.shape) for info in checkpoint.tensors.values())
    return CheckpointSummary(fingerprint, len(checkpoint.tensors), entries, checkpoint.nbytes, name, revision)


def _recipe(options: Options) -> dict[str, str]:
    if options.target is not None:
        return {"select": options.target.describe(), "values": "grid"}
    return {"select": options.selection.describe(), "values": options.values}

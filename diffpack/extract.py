"""extract: two checkpoints -> a diff.

The data's way: pair the tensors, scan each pair (hash and compare), choose what to store, code it in chunks,
write the manifest. The file is written in one pass and read back through the ordinary reader.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from diffpack.atomic import atomic_file, refuse_overwriting
from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.choose import choose, float_entries, split_aliases
from diffpack.container.source import FileSource
from diffpack.container.table import encode_chunk
from diffpack.container.writer import ContainerWriter
from diffpack.diff import Diff, open_diff
from diffpack.encode import Record, span_jobs
from diffpack.fingerprint import DIGEST_BYTES, combine, digests_of
from diffpack.layout import keep_layout
from diffpack.manifest import CheckpointSummary, Group, Manifest, to_json
from diffpack.options import Options
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

    With `output` the file is written there in one pass; without, the diff lives in an unnamed temporary file.
    `rename` gives (old prefix, new prefix) rules for the base's names; None finds one by itself. `sha256` also
    records the tuned files' SHA-256. `metadata` is free text for people.

    Raises `CheckpointError`, `UsageError` (options that do not fit, an existing output without `force`).
    """
    options = Options(
        Selection(density, top_k, threshold), values, profile, None if rename is None else tuple(rename),
        layout, files, sha256, base_name, base_revision, threads,
    )  # fmt: skip
    base, tuned = open_checkpoint(base), open_checkpoint(tuned)
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
    records = choose(stored, options, float_entries(scans))
    writer = ContainerWriter(file)
    groups = _write_groups(writer, records, options, progress)
    kept_layout = keep_layout(writer, base, tuned, options)
    kept_files = keep_side_files(writer, base, tuned, options)
    fingerprints = _fingerprints(scans, base, tuned, options.threads)
    manifest = Manifest(
        base=_summary(base, fingerprints[0], options.base_name, options.base_revision),
        result=_summary(tuned, fingerprints[1]),
        exact=options.exact,
        groups=tuple(groups),
        aliases=aliases,
        removed=pairing.removed,
        rename=pairing.rename,
        layout=kept_layout,
        files=tuple(kept_files),
        metadata=metadata,
        recipe=_recipe(options),
        requires=("classes",) if any(group.positions == "classes" for group in groups) else (),
    )
    if not options.exact:
        manifest = sealed(file, writer, manifest, base, options.threads)
    writer.finish(to_json(manifest))


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
        if group[0].values == "int8":
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
        counts=tuple(item.count for item in scans) if positions == "classes" else None,
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
    return {"select": options.selection.describe(), "values": options.values}

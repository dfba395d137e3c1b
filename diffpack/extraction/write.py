"""From chosen records to a file: their groups chunk by chunk, layout and side files, the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO

import numpy as np

from diffpack.diff.layout import keep_layout
from diffpack.diff.sidefiles import keep_side_files
from diffpack.extraction.distortion import Distortion
from diffpack.extraction.encode.record import Record
from diffpack.extraction.encode.spans import span_jobs
from diffpack.extraction.options import Options
from diffpack.extraction.scan.survey import Found
from diffpack.format.chunks import encode_chunk
from diffpack.format.features import FEATURES
from diffpack.format.manifest import MILLIONTHS, Group, Manifest, digest_column, to_json
from diffpack.format.values import SCALED
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.parallel import Progress, run_in_order


@dataclass(frozen=True)
class Written:
    """What a file came to: its bytes, those of its grid values, the relative L2 error (0 if exact)."""

    nbytes: int
    grid_bytes: int
    error: float


def write_records(
    file: BinaryIO,
    found: Found,
    records: Sequence[Record],
    options: Options,
    metadata: dict[str, str],
    progress: Progress | None,
) -> Written:
    """Write a whole diff into an empty file, in one pass. Raises `WrongBaseError` if the base changes meanwhile."""
    writer = ContainerWriter(file)
    groups = _write_groups(writer, records, options, progress)
    grid_bytes = _bytes_of(writer, groups, "grid")
    layout = files = None
    if options.exact and options.keep_layout:
        layout = keep_layout(writer, found.base, found.tuned, options.profile, sha256=options.sha256)
    if options.keep_files:
        files = keep_side_files(writer, found.base, found.tuned, options.profile)
    codings = {group.positions for group in groups} | {group.values for group in groups}
    manifest = Manifest(
        base=found.summaries[0],
        result=found.summaries[1],
        exact=options.exact,
        groups=tuple(groups),
        aliases=found.aliases,
        removed=found.pairing.removed,
        rename=found.pairing.rename,
        layout=layout,
        files=files or (),
        metadata=metadata,
        recipe=_recipe(options),
        requires=tuple(sorted(codings & FEATURES.keys())),
    )
    if not options.exact:
        distortion = Distortion(found.stored, found.moved)
        manifest = with_result_fingerprint(file, writer, manifest, found.base, options.threads, distortion.see)
        manifest = distortion.recorded(manifest)
    writer.finish(to_json(manifest))
    return Written(file.tell(), grid_bytes, (manifest.error or 0) / MILLIONTHS)


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
        base_digests=digest_column(item.base_digest for item in scans) if base else None,
        result_digests=digest_column(item.digest for item in scans) if exact else None,
        counts=_counts(records),
        rule=records[0].rule,
    )


def _counts(records: Sequence[Record]) -> tuple[int, ...] | None:
    """Give what the manifest says of the records' changes where not everybody can count them."""
    if records[0].rule is not None:
        return tuple(record.chosen.size for record in records if record.chosen is not None)
    if records[0].positions == "levels" and records[0].values == "exact":
        return tuple(record.scan.count for record in records)
    return None


def _bytes_of(writer: ContainerWriter, groups: Sequence[Group], values: str) -> int:
    """Count the bytes of the chunks of groups with a value coding; they are the first ones written."""
    total = first = 0
    for group in groups:
        stop = first + len(group.ends) + (group.values in SCALED)
        if group.values == values:
            total += sum(chunk.nbytes for chunk in writer.chunks[first:stop])
        first = stop
    return total


def _recipe(options: Options) -> dict[str, str]:
    if options.target is not None:
        weighted = {} if options.importance is None else {"weights": "by tensor"}
        return {"select": options.target.describe(), "values": "grid", **weighted}
    return {"select": options.selection.describe(), "values": options.values}

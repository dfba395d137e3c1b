"""From chosen records to a file: their groups chunk by chunk, layout and side files, the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.folder_checkpoint import FolderCheckpoint
from diffpack.checkpoints.side_files import named
from diffpack.diff.factor_spans import factor_jobs, factor_table, scale_streams
from diffpack.diff.layout import keep_layout
from diffpack.diff.sidefiles import keep_side_files
from diffpack.diff.structure import keep_structure
from diffpack.diff.summary import LEFT_OUT, new_manifest
from diffpack.errors import CheckpointError
from diffpack.extraction.distortion import Distortion
from diffpack.extraction.encode.record_plan import RecordPlan, in_groups
from diffpack.extraction.encode.spans import span_jobs
from diffpack.extraction.options import Options
from diffpack.extraction.scan.survey import Survey
from diffpack.format.chunks import encode_chunk
from diffpack.format.manifest import MILLIONTHS, FactorTable, Group, digest_column, to_json
from diffpack.format.values import VALUE_CODINGS
from diffpack.format.values.grid import GRID
from diffpack.format.writer import ContainerWriter
from diffpack.result.seal import with_result_fingerprint
from diffpack.support.names import listed
from diffpack.support.parallel import Progress, counter, run_in_order


@dataclass(frozen=True)
class Written:
    """What a file came to: its bytes, those of its grid values, the relative L2 error (0 if exact).

    `infinite` counts, by tensor, the entries that lossy values make infinite although the reference is finite.
    """

    nbytes: int
    grid_bytes: int
    error: float
    infinite: Mapping[str, int] = field(default_factory=dict)


_NO_SHA256 = "only an exact diff of safetensors files that keeps their layout gives these files back"


def write_plans(
    file: BinaryIO,
    surveyed: Survey,
    plans: Sequence[RecordPlan],
    options: Options,
    metadata: dict[str, str],
    progress: Progress | None,
) -> Written:
    """Write a whole diff into an empty file, in one pass.

    `progress` is told of "coding", and of "checking" what a lossy one gives. Raises `WrongBaseError` if the base
    changes meanwhile.
    """
    writer = ContainerWriter(file)
    groups = _write_groups(writer, plans, options, progress)
    grid_bytes = _grid_bytes(writer, groups)
    base, tuned = surveyed.base, surveyed.tuned
    layout = None
    if options.keep_layout and (options.exact or isinstance(tuned, FolderCheckpoint)):
        layout = keep_layout(writer, base, tuned, options.profile, sha256=options.sha256 and options.exact)
    if options.sha256 and (layout is None or layout.sha256 is None):
        tuned.advice.append(f"sha256: none is recorded of {tuned.source}: {_NO_SHA256}")
    if layout is None:
        _check_parts(base, tuned)
    structure = keep_structure(base, tuned) if options.keep_layout else None
    files = keep_side_files(writer, base, tuned, options.profile, options.keep_files, code=options.keep_code)
    manifest = new_manifest(
        surveyed.base_summary,
        surveyed.tuned_summary,
        groups,
        exact=options.exact,
        metadata=metadata,
        recipe=_recipe(options, groups) | ({LEFT_OUT: named(tuned.left_out)} if tuned.left_out else {}),
        aliases=surveyed.aliases,
        removed=surveyed.pairing.removed,
        rename=surveyed.pairing.rename,
        layout=layout,
        files=files,
        structure=structure,
        copies=surveyed.copies,
        slices=surveyed.slices,
    )
    infinite: Mapping[str, int] = {}
    if not options.exact:
        distortion = Distortion(surveyed.stored, surveyed.moved)
        done = counter(progress, "checking", manifest.result.bytes)
        manifest, check = with_result_fingerprint(file, writer, manifest, base, options.threads, distortion.see, done)
        manifest, infinite = distortion.recorded(manifest), check.infinite
    writer.finish(to_json(manifest))
    return Written(file.tell(), grid_bytes, (manifest.error or 0) / MILLIONTHS, infinite)


def _check_parts(base: Checkpoint, tuned: Checkpoint) -> None:
    """Raise `CheckpointError` if weights in sub-folders would find no place again, since no layout is kept."""
    if not isinstance(tuned, FolderCheckpoint):
        return
    known = base.parts.keys() if isinstance(base, FolderCheckpoint) else {""}
    homeless = sorted(tuned.parts.keys() - known)
    if homeless:
        raise CheckpointError(
            f"{tuned.source}: has weights in {listed(homeless)}, where the base has none; they can be given back only "
            "with the layout, which is kept for single safetensors files"
        )


def _write_groups(
    writer: ContainerWriter, plans: Sequence[RecordPlan], options: Options, progress: Progress | None
) -> list[Group]:
    """Code the records group by group; give the groups as the manifest holds them."""
    groups = []
    total = sum(plan.scan.pair.info.nbytes for plan in plans)
    before = 0
    for own in in_groups(plans):
        nbytes = sum(plan.scan.pair.info.nbytes for plan in own)
        length = sum(plan.scan.tuned.size for plan in own)
        factors = [plan.factors for plan in own if plan.factors is not None]
        if own[0].value_coding.scaled or factors:
            scales = [plan.scale for plan in own if plan.value_coding.scaled]
            writer.add(encode_chunk(scale_streams(scales, factors), options.profile))
        factor_spans = list(factor_jobs(factors, options.profile))
        for chunk in run_in_order((job for _, job in factor_spans), options.threads):
            writer.add(chunk)
        spans = list(span_jobs(own, options.profile))
        chunks = run_in_order((job for _, job in spans), options.threads)
        for (end, _), chunk in zip(spans, chunks, strict=True):
            writer.add(chunk)
            if progress is not None:
                progress("coding", before + nbytes * end // length, total)
        before += nbytes
        table = factor_table(factors, [end for end, _ in factor_spans])
        groups.append(_group(own, [end for end, _ in spans], table, options.exact))
    return groups


def _group(plans: Sequence[RecordPlan], ends: list[int], factors: FactorTable | None, exact: bool) -> Group:
    first = plans[0]
    scans = [plan.scan for plan in plans]
    base = first.scan.pair.base
    return Group(
        dtype=first.scan.pair.info.dtype.name,
        base_dtype=base.dtype.name if base else None,
        position_coding_id=first.position_coding.id,
        value_coding_id=first.value_coding.id,
        names=tuple(item.pair.name for item in scans),
        shapes=tuple(item.pair.info.shape for item in scans),
        ends=tuple(ends),
        resized={item.pair.name: item.pair.base.shape for item in scans if item.pair.base and item.pair.resized},
        base_digests=digest_column(item.base_digest for item in scans) if base else None,
        result_digests=digest_column(item.digest for item in scans) if exact else None,
        counts=tuple(plan.count for plan in plans) if first.position_coding.counted(first.value_coding) else None,
        rule=first.rule,
        factors=factors,
    )


def _grid_bytes(writer: ContainerWriter, groups: Sequence[Group]) -> int:
    """Count the bytes of the chunks of groups of grid values; groups are the first ones written."""
    total = first = 0
    for group in groups:
        coding = VALUE_CODINGS[group.value_coding_id]
        factors = group.factors
        scales = coding.scaled or factors is not None
        stop = first + scales + (len(factors.ends) if factors else 0) + len(group.ends)
        if coding is GRID:
            total += sum(chunk.nbytes for chunk in writer.chunks[first:stop])
        first = stop
    return total


def _recipe(options: Options, groups: Sequence[Group]) -> dict[str, str]:
    rank = max((group.factors.rank for group in groups if group.factors), default=0)
    factors = {"factors": f"of up to {rank} directions"} if rank else {}
    if options.target is not None:
        weighted = {} if options.importance is None else {"weights": "by tensor"}
        return {"select": options.target.describe(), "values": GRID.id, **weighted, **factors}
    return {"select": options.selection.describe(), "values": options.value_choice, **factors}

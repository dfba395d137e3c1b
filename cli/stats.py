"""`diffpack stats`: what diffs change and what they cost, each and together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .describe import coding_text, error_text
from .options import STDIO, DiffPath, Session, global_options, opened, optional_base, read_diff
from .output import Report, emit, emit_json, few_bits, mode, percent, plural, safe, size, table
from .progress import watched

if TYPE_CHECKING:
    from diffpack.diff.stats import DiffStats, TensorStats
    from diffpack.report.stats import Stats

KEYS = {
    "diffs[].path": "the diff",
    "diffs[].exact": "whether applying it gives the tuned checkpoint bit for bit",
    "diffs[].changed": "entries stored as changed",
    "diffs[].entries": "entries of the result",
    "diffs[].density": "changed / entries",
    "diffs[].bytes": "bytes of the file",
    "diffs[].weight_bytes": "bytes of the file without side files",
    "diffs[].bits_per_change": "bits of the file for each changed entry (0 if there is none)",
    "diffs[].weight_bits": "the same of weight_bytes",
    "diffs[].share_of_base": "bytes of the file / bytes of the base's tensors",
    "diffs[].weight_share": "weight_bytes / bytes of the base's tensors",
    "diffs[].factor_bytes": "bytes of low-rank factors",
    "diffs[].position_bytes": "bytes that say where entries change",
    "diffs[].value_bytes": "bytes that say what changes",
    "diffs[].manifest_bytes": "bytes of the manifest",
    "diffs[].file_bytes": "bytes of the layout and of side files",
    "diffs[].layout_bytes": "bytes of the layout: the headers of weights files",
    "diffs[].side_file_bytes": "bytes of side files (config, tokenizer)",
    "diffs[].base_fingerprint": "content hash of the base",
    "diffs[].base_name": "what people call the base, or null",
    "diffs[].base_bytes": "bytes of the base's tensors",
    "diffs[].result_bytes": "bytes of the result's tensors",
    "diffs[].removed": "how many of the base's tensors the result lacks",
    "diffs[].aliases": "how many tensors are stored as equal to another",
    "diffs[].error": "relative L2 error: norm of result - tuned / norm of tuned - base; 0 if exact, null if unknown",
    "diffs[].recipe": "object: how it was made; of a merge also `shared` and `conflicts`, where the diffs met",
    "diffs[].tensors[].name": "with --tensors: a tensor the diff stores something of",
    "diffs[].tensors[].kind": "changed, resized, retyped or new",
    "diffs[].tensors[].dtype": "its dtype, by its safetensors name",
    "diffs[].tensors[].shape": "its shape",
    "diffs[].tensors[].positions": "coding of the positions",
    "diffs[].tensors[].values": "coding of the values",
    "diffs[].tensors[].rank": "the largest rank of its low-rank factors; 0 without any",
    "diffs[].tensors[].changed": "its changed entries",
    "diffs[].tensors[].entries": "its entries",
    "diffs[].tensors[].density": "changed / entries",
    "diffs[].tensors[].error": "its relative L2 error; null if not recorded",
    "together.diffs": "how many diffs",
    "together.bases": "how many different bases they have",
    "together.diff_bytes": "bytes of all diffs",
    "together.weight_bytes": "bytes of all diffs without side files",
    "together.side_file_bytes": "bytes of the side files in all diffs",
    "together.base_bytes": "bytes of the bases' tensors, each base once",
    "together.total_bytes": "diff_bytes + base_bytes: what keeping the bases and the diffs costs",
    "together.total_weight_bytes": "the same without side files",
    "together.full_bytes": "bytes of the tensors of all results as full copies",
    "together.share_of_base": "diff_bytes / base_bytes",
    "together.weight_share": "weight_bytes / base_bytes",
    "base_checked": "whether --base was compared with every diff",
}
"""What `--json` prints; `a[].b` is member b of every item of the list a."""


@click.command()
@click.argument("diffs", nargs=-1, required=True, type=DiffPath(), metavar="DIFF...")
@optional_base
@click.option("--tensors", is_flag=True, help="Also list every tensor.")
@global_options
@click.pass_obj
def command(session: Session, diffs: tuple[str, ...], base: str | None, tensors: bool) -> None:
    """Show what each DIFF changes and costs, and what all of them cost against full copies.

    One DIFF may be - for standard input.
    """
    if diffs.count(STDIO) > 1:
        raise click.UsageError("standard input is one diff, not several")
    sources = [read_diff(diff) for diff in diffs]
    import diffpack

    with watched(session, "counting"):
        counted = diffpack.stats(sources, opened(session, base), threads=session.threads)
    report = describe(counted, tensors, base is not None)
    if session.json:
        emit_json(report)
    else:
        emit(as_text(report))


def describe(counted: Stats, tensors: bool, base_checked: bool) -> Report:
    """What was counted, as `--json` prints it."""
    return {
        "diffs": [_diff(item, tensors) for item in counted.diffs],
        "together": {
            "diffs": len(counted.diffs),
            "bases": len({item.base_fingerprint for item in counted.diffs}),
            "diff_bytes": counted.nbytes,
            "weight_bytes": counted.weight_bytes,
            "side_file_bytes": counted.side_file_bytes,
            "base_bytes": counted.base_bytes,
            "total_bytes": counted.base_bytes + counted.nbytes,
            "total_weight_bytes": counted.base_bytes + counted.weight_bytes,
            "full_bytes": counted.full_bytes,
            "share_of_base": counted.share_of_base,
            "weight_share": counted.weight_share,
        },
        "base_checked": base_checked,
    }


def _diff(item: DiffStats, tensors: bool) -> Report:
    report: Report = {
        "path": item.name,
        "exact": item.exact,
        "changed": item.changed,
        "entries": item.result_entries,
        "density": item.density,
        "bytes": item.nbytes,
        "weight_bytes": item.weight_bytes,
        "bits_per_change": item.bits_per_change,
        "weight_bits": item.weight_bits,
        "share_of_base": item.share_of_base,
        "weight_share": item.weight_share,
        "factor_bytes": item.factor_bytes,
        "position_bytes": item.position_bytes,
        "value_bytes": item.value_bytes,
        "manifest_bytes": item.manifest_bytes,
        "file_bytes": item.layout_bytes + item.side_file_bytes,
        "layout_bytes": item.layout_bytes,
        "side_file_bytes": item.side_file_bytes,
        "base_fingerprint": item.base_fingerprint,
        "base_name": item.base_name,
        "base_bytes": item.base_bytes,
        "result_bytes": item.result_bytes,
        "removed": item.removed,
        "aliases": item.aliases,
        "error": item.error,
        "recipe": dict(item.recipe),
    }
    return report | ({"tensors": [_tensor(tensor) for tensor in item.tensors]} if tensors else {})


def _tensor(item: TensorStats) -> Report:
    return {
        "name": item.name,
        "kind": item.kind,
        "dtype": item.dtype,
        "shape": list(item.shape),
        "positions": item.position_coding_id,
        "values": item.value_coding_id,
        "rank": item.rank,
        "changed": item.changed,
        "entries": item.entries,
        "density": item.density,
        "error": item.error,
    }


_HEAD = ("diff", "mode", "error", "changed", "density", "weights", "bits/change", "of base")
_PARTS = {
    "factors": "factor_bytes",
    "positions": "position_bytes",
    "values": "value_bytes",
    "manifest": "manifest_bytes",
    "layout": "layout_bytes",
    "side files": "side_file_bytes",
}
_TENSOR_HEAD = ("tensor", "kind", "dtype", "shape", "coding", "changed", "density", "error")


def as_text(report: Report) -> str:
    """The same for people."""
    lines = table(_HEAD, [_row(item) for item in report["diffs"]], frozenset({0, 1}))
    lines += ["", *_parts(report["diffs"]), ""]
    merged = [_merged(item) for item in report["diffs"] if "merged" in item["recipe"]]
    lines += [*merged, ""] if merged else []
    for item in report["diffs"]:
        if item.get("tensors"):
            rows = [_tensor_row(tensor) for tensor in item["tensors"]]
            title = [f"{safe(item['path'])}:"] if len(report["diffs"]) > 1 else []
            lines += [*title, *table(_TENSOR_HEAD, rows, frozenset(range(5))), ""]
    return "\n".join([*lines, *_together(report["together"])])


def _row(item: Report) -> list[str]:
    bits = few_bits(item["weight_bits"]) if item["changed"] else "-"
    return [
        safe(item["path"]), mode(item["exact"]), error_text(item["error"]), f"{item['changed']:,}",
        percent(item["density"]), size(item["weight_bytes"]), bits, percent(item["weight_share"]),
    ]  # fmt: skip


def _parts(items: list[Report]) -> list[str]:
    """Where the bytes of diffs are; factors only where one has some."""
    factors = any(item["factor_bytes"] for item in items)
    parts = {head: key for head, key in _PARTS.items() if factors or head != "factors"}
    rows = [[safe(item["path"]), *(size(item[key]) for key in parts.values())] for item in items]
    return table(["where the bytes are", *parts], rows)


def _merged(item: Report) -> str:
    recipe = item["recipe"]
    shared, conflicts = recipe.get("shared", "?"), recipe.get("conflicts", "?")
    met = f"{shared} entries changed by several, {conflicts} in different directions"
    return f"{safe(item['path'])}: merged {safe(recipe['merged'])}; {safe(met)}"


def _tensor_row(item: Report) -> list[str]:
    return [
        safe(item["name"]), item["kind"], item["dtype"], str(item["shape"]),
        coding_text(item["positions"], item["values"], item["rank"]), f"{item['changed']:,}", percent(item["density"]),
        error_text(item["error"]),
    ]  # fmt: skip


def _together(totals: Report) -> list[str]:
    bases, diffs = plural(totals["bases"], "base"), plural(totals["diffs"], "diff")
    share = percent(totals["total_weight_bytes"] / totals["full_bytes"]) if totals["full_bytes"] else "-"
    rows = [
        (f"{diffs} together", size(totals["weight_bytes"]), f"{percent(totals['weight_share'])} of {bases}"),
        (f"{bases} and {diffs}", size(totals["total_weight_bytes"]), f"{share} of full copies"),
        (plural(totals["diffs"], "full copy"), size(totals["full_bytes"]), ""),
    ]
    if totals["side_file_bytes"]:
        rows.append(("side files beside them", size(totals["side_file_bytes"]), "in the diffs, in no figure above"))
    return table(rows[0], rows[1:], frozenset({0, 2}))

"""`diffpack inspect`: the manifest, for people and scripts. Decodes no chunk."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from .describe import (
    CHANGE_KEYS,
    SUMMARY_KEYS,
    change_rows,
    changes,
    recipe_text,
    summaries,
    summary_text,
)
from .options import Session, diff_argument, global_options, read_diff
from .output import Report, emit, emit_json, fields, listed, mode, percent, plural, safe, size, table

if TYPE_CHECKING:
    from diffpack import Diff
    from diffpack.format.manifest import Group

KEYS = {
    "path": "the diff",
    "bytes": "bytes of the file",
    "manifest_bytes": "bytes of its manifest",
    "side_file_bytes": "bytes of the side files (config, tokenizer) in it",
    "format": "format version, `major.minor`",
    "requires": "features a reader must know",
    "optional": "features a reader may ignore",
    "exact": "whether applying it gives the tuned checkpoint bit for bit",
    **SUMMARY_KEYS,
    "records": "how many tensors something is stored of",
    "groups[].dtype": "dtype of the records of a group",
    "groups[].base_dtype": "their dtype in the base; null for new tensors",
    "groups[].positions": "coding of the positions",
    "groups[].rule": "which words change, where a rule tells it; else null",
    "groups[].values": "coding of the values",
    "groups[].factors": "what the numbers of low-rank factors are: int, f32, f16 or bf16; null without factors",
    "groups[].rank": "the largest rank of factors; 0 without any",
    "groups[].factor_spans": "in how many separately stored pieces factors are",
    "groups[].records": "how many records",
    "groups[].spans": "in how many separately stored pieces",
    "chunks": "how many checksummed pieces the file has",
    "codecs": "object: streams of each codec",
    **CHANGE_KEYS,
    "layout": "null if the tuned files' layout is not kept, else an object:",
    "layout.files[].name": 'a weights file of the tuned checkpoint ("" for a single file of any name)',
    "layout.files[].header_bytes": "bytes of its header",
    "layout.files[].sha256": "its SHA-256, or null",
    "layout.index": "name of the shard index, or null",
    "layout.folder": "whether it is a model folder's",
    "layout.stored": "whether the diff holds it; else it is the base's",
    "structure": "what an HDF5 file has beside its tensors: 'stored', 'base' where it is the base's, or null",
    "files[].name": "a side file",
    "files[].bytes": "its size",
    "files[].stored": "whether the diff holds it; else it is the base's",
    "metadata": "object: the user's notes",
    "recipe": "object: how entries and values were chosen",
    "tensors[].name": "with --tensors: a tensor something is stored of",
    "tensors[].kind": "changed, resized, retyped or new",
    "tensors[].dtype": "its dtype, by its safetensors name",
    "tensors[].shape": "its shape",
    "tensors[].positions": "coding of the positions",
    "tensors[].values": "coding of the values",
    "tensors[].rank": "the largest rank of its low-rank factors; 0 without any",
    "tensors[].error": "its relative L2 error; null if not recorded",
    "tensors[].contexts": "for levels and classes: by what words were coded with their like (rows, columns, exponent)",
    "tensors[].bytes": "bytes of the chunks that hold it; of a shared chunk, by the share of its words",
    "tensors[].tensor_bytes": "bytes of the tensor itself",
    "tensors[].saved": "1 - bytes / tensor_bytes: what coding saves against storing the tensor plainly",
}
"""What `--json` prints; `a[].b` is member b of every item of the list a."""


@click.command()
@diff_argument
@click.option("--tensors", is_flag=True, help="Also list every tensor.")
@global_options
@click.pass_obj
def command(session: Session, diff: str, tensors: bool) -> None:
    """Show what DIFF says about itself: versions, base, result, codings, layout, notes.

    Reads the manifest alone (with --tensors also how chunks of levels were made); `diffpack stats` counts changes,
    `diffpack verify` checks every byte. DIFF may be - for standard input.
    """
    source = read_diff(diff)
    import diffpack

    with diffpack.open(source) as opened:
        report = describe(opened, tensors)
        may_need_base = opened.may_need_base
    if session.json:
        emit_json(report)
    else:
        emit(as_text(report, may_need_base=may_need_base))


def describe(diff: Diff, tensors: bool) -> Report:
    """What the manifest says, as `--json` prints it."""
    manifest = diff.manifest
    report: Report = {
        "path": diff.name,
        "bytes": diff.nbytes,
        "manifest_bytes": diff.manifest_bytes,
        "side_file_bytes": diff.side_file_bytes,
        "format": ".".join(map(str, diff.version)),
        "requires": list(manifest.requires),
        "optional": list(manifest.optional),
        "exact": diff.exact,
        **summaries(diff),
        "records": len(diff),
        "groups": [_group(group) for group in manifest.groups],
        "chunks": len(diff.chunks),
        "codecs": dict(sorted(Counter(stream.codec for chunk in diff.chunks for stream in chunk.streams).items())),
        **changes(diff),
        "layout": _layout(diff),
        "structure": _structure(diff),
        "files": [{"name": item.name, "bytes": item.bytes, "stored": item.stored} for item in manifest.files],
        "metadata": diff.metadata,
        "recipe": dict(manifest.recipe),
    }
    return report | ({"tensors": _tensors(diff)} if tensors else {})


def _group(group: Group) -> Report:
    factors = group.factors
    return {
        "dtype": group.dtype,
        "base_dtype": group.base_dtype,
        "positions": group.position_coding_id,
        "rule": group.rule,
        "values": group.value_coding_id,
        "factors": factors.values if factors else None,
        "rank": factors.rank if factors else 0,
        "factor_spans": len(factors.ends) if factors else 0,
        "records": len(group.names),
        "spans": len(group.ends),
    }


def _structure(diff: Diff) -> str | None:
    structure = diff.manifest.structure
    if structure is None:
        return None
    return "base" if structure.content is None else "stored"


_STRUCTURE = {None: "", "stored": "of an HDF5 file, stored", "base": "as the base's HDF5 file has it"}


def _layout(diff: Diff) -> Report | None:
    layout = diff.manifest.layout
    if layout is None:
        return None
    digests = layout.sha256 or (None,) * len(layout.files)
    return {
        "files": [
            {"name": name, "header_bytes": header, "sha256": digest}
            for (name, header), digest in zip(layout.files, digests, strict=False)
        ],
        "index": layout.index[0] if layout.index else None,
        "folder": layout.folder,
        "stored": layout.stored,
    }


def _tensors(diff: Diff) -> list[Report]:
    return [
        {
            "name": name,
            "kind": record.kind,
            "dtype": record.dtype,
            "shape": list(record.shape),
            "positions": record.coding[0],
            "values": record.coding[1],
            "rank": record.rank,
            "error": diff.error(name),
            "contexts": list(diff.contexts(name)),
            **_sizes(diff.stored_bytes(name), record.info.nbytes),
        }
        for name, record in diff.items()
    ]


def _sizes(stored: int, nbytes: int) -> Report:
    return {"bytes": stored, "tensor_bytes": nbytes, "saved": 1 - stored / nbytes if nbytes else 0.0}


def as_text(report: Report, *, may_need_base: bool) -> str:
    """The same for people."""
    groups = [
        f"{plural(group['records'], 'record')} {_dtypes(group)} {_positions(group)}/{group['values']}"
        f" in {plural(group['spans'], 'span')}{_factors_text(group)}"
        for group in report["groups"]
    ]
    codecs = ", ".join(f"{safe(codec)} {count:,}" for codec, count in report["codecs"].items())
    rows = [
        ("format", f"{report['format']}{_features(report)}"),
        ("size", f"{size(report['bytes'])}, {size(report['manifest_bytes'])} of it manifest{_beside(report)}"),
        ("mode", f"{mode(report['exact'])} ({recipe_text(report['recipe'])})"),
        ("base", summary_text(report["base"])),
        ("", report["base"]["fingerprint"]),
        ("result", summary_text(report["result"])),
        ("", report["result"]["fingerprint"] or "its fingerprint is not recorded: made without the base"),
        ("records", plural(report["records"], "tensor")),
        *(("", group) for group in groups),
        *([("", "in classes, levels or a rule: changes may need the base to be decoded")] if may_need_base else []),
        ("chunks", f"{report['chunks']:,}{f' (streams: {codecs})' if codecs else ''}"),
        *change_rows(report),
        ("layout", _layout_text(report["layout"])),
        ("structure", _STRUCTURE[report["structure"]]),
        *_file_rows(report),
        *(("metadata" if at == 0 else "", text) for at, text in enumerate(_notes(report))),
    ]
    lines = [safe(report["path"]), *fields(rows)]
    if report.get("tensors"):
        lines += ["", *_tensor_table(report["tensors"], errors=not report["exact"])]
    return "\n".join(lines)


def _tensor_table(tensors: list[Report], *, errors: bool) -> list[str]:
    from diffpack.report.tables import error_text

    head = ["tensor", "kind", "dtype", "shape", "coding", "size", "saved", *(["error"] if errors else [])]
    rows = [
        [
            safe(item["name"]),
            item["kind"],
            item["dtype"],
            str(item["shape"]),
            _coding(item),
            size(item["bytes"]),
            percent(item["saved"]),
            *([error_text(item["error"])] if errors else []),
        ]
        for item in tensors
    ]
    return table(head, rows, frozenset(range(5)))


def _factors_text(group: Report) -> str:
    if group["factors"] is None:
        return ""
    spans = plural(group["factor_spans"], "span")
    return f", factors ({group['factors']}) of rank {group['rank']} or less in {spans}"


def _beside(report: Report) -> str:
    return f", {size(report['side_file_bytes'])} side files" if report["side_file_bytes"] else ""


def _positions(group: Report) -> str:
    return group["positions"] if group["rule"] is None else f"{group['positions']}({safe(group['rule'])})"


def _coding(item: Report) -> str:
    from diffpack.report.tables import coding_text

    contexts = f"({', '.join(item['contexts'])})" if item["contexts"] else ""
    return coding_text(f"{item['positions']}{contexts}", item["values"], item["rank"])


def _dtypes(group: Report) -> str:
    base, dtype = group["base_dtype"], group["dtype"]
    return f"new {dtype}" if base is None else dtype if base == dtype else f"{base} -> {dtype}"


def _features(report: Report) -> str:
    requires, optional = (", ".join(map(safe, report[key])) for key in ("requires", "optional"))
    return (f", requires {requires}" if requires else "") + (f", optional {optional}" if optional else "")


def _notes(report: Report) -> list[str]:
    return [f"{safe(key)} = {safe(value)}" for key, value in report["metadata"].items()]


def _layout_text(layout: Report | None) -> str:
    if layout is None:
        return "not kept: the result has the tensors, not the files"
    names = [item["name"] for item in layout["files"]]
    what = listed(names, "file") if layout["folder"] else "one safetensors file"
    digests = ", SHA-256 recorded" if any(item["sha256"] for item in layout["files"]) else ""
    return f"{what}{'' if layout['stored'] else ', as the base has it'}{digests}"


def _file_rows(report: Report) -> list[tuple[str, str]]:
    stored = [f"{item['name']} ({size(item['bytes'])})" for item in report["files"] if item["stored"]]
    kept = [item["name"] for item in report["files"] if not item["stored"]]
    return [
        ("files", f"stored: {listed(stored, 'file')}" if stored else ""),
        ("" if stored else "files", f"as in the base: {listed(kept, 'file')}" if kept else ""),
    ]

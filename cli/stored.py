"""What was stored, in the words of `--json`, and those words as text: of every verb that writes a diff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .describe import CHANGE_KEYS, SUMMARY_KEYS, change_rows, changes, recipe_text, sizes, summaries
from .options import STDIO
from .output import Report, few_bits, fields, mode, percent, plural, safe
from .progress import Run

if TYPE_CHECKING:
    from diffpack import Diff

KEYS = {
    "path": "where the diff was written",
    "bytes": "its size",
    "weight_bytes": "its size without side files",
    "side_file_bytes": "what the side files (config, tokenizer) in it take",
    "exact": "whether applying it gives the tuned checkpoint bit for bit",
    "changed": "entries stored as changed",
    "entries": "entries of the result",
    "density": "changed / entries",
    "bits_per_change": "bits of the file for each changed entry (0 if there is none)",
    "weight_bits": "the same of weight_bytes",
    "share_of_base": "bytes of the file / bytes of the base's tensors",
    "weight_share": "weight_bytes / bytes of the base's tensors",
    "error": "relative L2 error: norm of result - tuned / norm of tuned - base; 0 if exact, null if unknown",
    **SUMMARY_KEYS,
    **CHANGE_KEYS,
    "recipe": "object: how entries and values were chosen",
    "notes": "remarks about the inputs",
    "left_out": "what of the tuned files is in no diff: training state, files that are not kept",
}
"""What `--json` prints; `a[].b` is member b of every item of the list a."""


def describe(diff: Diff, path: str, remarks: list[str], run: Run, left_out: Sequence[str] = ()) -> Report:
    """What was written, as `--json` prints it."""
    import diffpack

    counted = diffpack.stats(diff).diffs[0]
    run.end("counting")
    return {
        "path": path,
        "bytes": counted.nbytes,
        "weight_bytes": counted.weight_bytes,
        "side_file_bytes": counted.side_file_bytes,
        "exact": counted.exact,
        "changed": counted.changed,
        "entries": counted.result_entries,
        "density": counted.density,
        "bits_per_change": counted.bits_per_change,
        "weight_bits": counted.weight_bits,
        "share_of_base": counted.share_of_base,
        "weight_share": counted.weight_share,
        "error": counted.error,
        **summaries(diff),
        **changes(diff),
        "recipe": dict(diff.manifest.recipe),
        "notes": remarks,
        "left_out": sorted(left_out),
    }


def as_text(report: Report) -> str:
    """The same for people."""
    share = f"{percent(report['weight_share'])} of the base"
    how = "" if report["exact"] else f" ({recipe_text(report['recipe'])})"
    changed = f"{report['changed']:,} of {plural(report['entries'], 'entry')}, {percent(report['density'])}"
    bits = f", {few_bits(report['weight_bits'])} bits each" if report["changed"] else ""
    error = f"{report['error']:.4f} of the change (relative L2)" if report["error"] else ""
    rows = [
        ("changed", changed + bits),
        ("error", error),
        *change_rows(report),
        ("result", report["result"]["fingerprint"]),
    ]
    name = "standard output" if report["path"] == STDIO else safe(report["path"])
    title = f"{name}: {sizes(report)}, {share}, {mode(report['exact'])}{how}"
    return "\n".join([title, *fields(rows)])

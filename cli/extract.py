"""`diffpack extract`: two checkpoints -> a diff."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .amounts import Share
from .describe import CHANGE_KEYS, SUMMARY_KEYS, change_rows, changes, recipe_text, sizes, summaries
from .destination import check_output
from .options import (
    STDIO,
    Assignment,
    CheckpointPath,
    LibraryChoice,
    OutputPath,
    Session,
    Text,
    base_option,
    force_option,
    global_options,
    open_checkpoint,
    rename_option,
)
from .output import (
    Report,
    advise,
    emit,
    emit_json,
    few_bits,
    fields,
    mode,
    notes,
    percent,
    plural,
    safe,
    tell_left_out,
    warn,
)
from .progress import Callback, watched

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

_VALUES = ("exact", "f32", "f16", "bf16", "int8", "int4", "ternary", "sign", "lowrank")
_POSITIONS = ("auto", "gaps", "all", "levels")
_PROFILES = ("compact", "portable", "smallest")


def _values() -> Iterable[str]:
    from diffpack.extraction.options import VALUE_CHOICES

    return VALUE_CHOICES


def _positions() -> Iterable[str]:
    from diffpack.extraction.options import POSITION_CHOICES

    return POSITION_CHOICES


@click.command()
@base_option
@click.option(
    "--tuned", required=True, type=CheckpointPath(), metavar="TUNED", help="The tuned checkpoint, of any known layout."
)
@click.option(
    "-o", "--output", type=OutputPath(), metavar="OUT",
    help="The diff to write; - is standard output.  [default: the tuned name with .dpk, in this folder]",
)  # fmt: skip
@click.option("--density", type=Share(), metavar="D", help="Keep this fraction of all float entries: 0.005 or 0.5%.")
@click.option("--top-k", type=int, metavar="K", help="Keep the K largest differences.")
@click.option("--threshold", type=float, metavar="X", help="Keep differences of at least X.")
@click.option(
    "--rule", type=Text(), metavar="RULE",
    help="With --density: of each tensor the entries that cost no positions: smallest, largest, or random N (a seed).",
)  # fmt: skip
@click.option(
    "--values", type=LibraryChoice(_VALUES, _values), default="exact", show_default=True,
    help="How values are stored; lowrank: of each matrix the first directions of its change (--rank).",
)  # fmt: skip
@click.option(
    "--budget", type=Text(), metavar="SIZE",
    help="Find the best diff of at most this size: 1MB, 800KiB, 500000 bytes, or a part of the base: 0.3%, 0.003.",
)  # fmt: skip
@click.option(
    "--target-error", type=float, metavar="E", help="Find the smallest diff with this relative L2 error: 0.05."
)
@click.option(
    "--rank", type=int, metavar="R",
    help="Directions of each matrix at most: with --values lowrank (16 without it), --budget, --target-error or "
    "--profile smallest, which find it by themselves and with 0 use none.",
)  # fmt: skip
@click.option(
    "--importance", type=CheckpointPath(), metavar="FILE",
    help="Weights of the squared error, under the tensors' names, for --budget and --target-error.",
)  # fmt: skip
@click.option(
    "--positions", type=LibraryChoice(_POSITIONS, _positions), default="auto", show_default=True,
    help="How exact changes are stored; auto: for each tensor what is estimated to be smallest.",
)  # fmt: skip
@click.option(
    "--profile", type=click.Choice(_PROFILES), default="compact", show_default=True,
    help="portable: zstd alone, for readers without pco. smallest: exact changes coded against the base.",
)  # fmt: skip
@click.option("--base-name", type=Text(), metavar="NAME", help="What people call the base (a hub id).")
@click.option("--base-revision", type=Text(), metavar="REV", help="The base's revision.")
@click.option("--meta", multiple=True, type=Assignment(), metavar="KEY=VALUE", help="Keep a note. Repeatable.")
@rename_option("Base names starting with OLD start with NEW in the tuned (else found by itself);")
@click.option("--no-layout", is_flag=True, help="Keep the tensors, not the bytes of the tuned safetensors files.")
@click.option(
    "--files", multiple=True, type=Text(), metavar="WHAT",
    help="Side files of a model folder to keep: all, model (config, not tokenizer), none, or a name or pattern "
    "(tokenizer*). The base's stand for the others. Repeatable.  [default: all]",
)  # fmt: skip
@click.option("--no-files", is_flag=True, help="The same as --files none.")
@click.option("--code", is_flag=True, help="Also keep side files that are code (custom model classes).")
@click.option(
    "--sha256", is_flag=True,
    help="Record the SHA-256 of the tuned safetensors files; apply and verify compare it with what they make.",
)  # fmt: skip
@click.option(
    "--allow-removed", is_flag=True, help="Store a TUNED that lacks over half of the base's entries, else refused."
)
@force_option
@global_options
@click.pass_obj
def command(
    session: Session, base: str, tuned: str, output: str | None, density: float | None, top_k: int | None,
    threshold: float | None, rule: str | None, values: str, budget: str | None, target_error: float | None,
    rank: int | None, importance: str | None, positions: str, profile: str, base_name: str | None,
    base_revision: str | None, meta: tuple[tuple[str, str], ...], rename: tuple[tuple[Any, str], ...],
    no_layout: bool, files: tuple[str, ...], no_files: bool, code: bool, sha256: bool, allow_removed: bool,
    force: bool,
) -> None:  # fmt: skip
    """Store TUNED as its difference from BASE.

    Without further options the diff is exact: applying it gives every bit back, and safetensors files byte for
    byte. Keeping only some entries, or storing values in fewer bits, makes it lossy.
    """
    metadata = dict(meta)
    if len(metadata) != len(meta):
        raise click.UsageError("--meta: a key stands there twice")
    if no_files and files:
        raise click.UsageError("--no-files and --files do not go together: it is --files none")
    kept = "none" if no_files else files or "all"
    target = output or default_output(tuned)
    piped = target == STDIO
    _check(density, top_k, threshold, rule, values, profile, positions, budget, target_error, importance, kept, rank)
    check_output(session, target, [base, tuned, importance], force)
    import diffpack

    before, after = open_checkpoint(session, base), open_checkpoint(session, tuned)
    session.output = f"a temporary file in {tempfile.gettempdir()}" if piped else target
    with watched(session, "scanning") as progress:
        diff = diffpack.extract(
            before, after, None if piped else target, density=density, top_k=top_k, threshold=threshold,
            rule=rule, values=values, budget=budget, target_error=target_error, rank=rank, importance=importance,
            positions=positions, profile=profile, rename=rename or None, allow_removed=allow_removed,
            layout=not no_layout, files=kept, code=code, sha256=sha256, base_name=base_name,
            base_revision=base_revision, metadata=metadata, threads=session.threads, force=force, progress=progress,
        )  # fmt: skip
        session.output, session.written = None, None if piped else target
        remarks = [*before.notes, *after.notes]
        told = [*remarks, *after.advice]
        report = {} if session.quiet and not session.json else describe(diff, target, told, progress, after.left_out)
    notes(session, remarks)
    tell_left_out(session, after.left_out)
    advise(session, after.advice)
    if piped:
        session.output = "standard output"
        diff.copy_to(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    if session.json:
        emit_json(report)
    elif not session.quiet:
        (warn if piped else emit)(as_text(report))


def _check(
    density: float | None, top_k: int | None, threshold: float | None, rule: str | None, values: str, profile: str,
    positions: str, budget: str | None, target_error: float | None, importance: str | None, files: str | Sequence[str],
    rank: int | None,
) -> None:  # fmt: skip
    """Let the library refuse options that do not fit, before a file is opened. Raises its `UsageError`."""
    from diffpack.diff.file_choice import FileChoice
    from diffpack.extraction.options import Options, Selection
    from diffpack.extraction.target import Target

    Options(
        Selection(density, top_k, threshold, rule), values, profile, positions, Target.of(budget, target_error),
        None if importance is None else {}, keep_files=FileChoice.of(files), rank=rank,
    )  # fmt: skip


def default_output(tuned: str) -> str:
    """The tuned checkpoint's name with `.dpk`: the folder's, or the file's without its weights suffix."""
    path = Path(tuned)
    name = path.name if path.name not in ("", "..") else path.resolve().name
    if not path.is_dir():
        from diffpack.checkpoints.endings import weights_suffix

        name = name.removesuffix(weights_suffix(name)) or name
    if not name:
        raise click.UsageError(f"{tuned}: has no name to call the diff by; name it with -o")
    return f"{name}.dpk"


def describe(diff: Diff, path: str, remarks: list[str], progress: Callback, left_out: Sequence[str] = ()) -> Report:
    """What was written, as `--json` prints it."""
    import diffpack

    counted = diffpack.stats(diff).diffs[0]
    progress("counting", diff.nbytes, diff.nbytes)
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

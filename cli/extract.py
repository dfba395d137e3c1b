"""`diffpack extract`: two checkpoints -> a diff."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import click

from .amounts import Share
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
from .output import advise, emit, emit_json, notes, tell_left_out, warn
from .progress import watched
from .several import KEYS_OF_SEVERAL, store_several
from .stored import KEYS, as_text, describe

__all__ = ["KEYS", "KEYS_OF_SEVERAL", "command"]

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
    "--tuned", multiple=True, type=CheckpointPath(), metavar="TUNED",
    help="The tuned checkpoint, of any known layout. Repeatable: of several each is stored, and BASE hashed once.",
)  # fmt: skip
@click.option(
    "--tuned-each", multiple=True, type=CheckpointPath(), metavar="FOLDER",
    help="A folder of tuned checkpoints: each sub-folder and each file in it that holds weights. Repeatable.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=OutputPath(), metavar="OUT",
    help="The diff to write; - is standard output. Of several TUNED the folder of their diffs, which have their names "
    "with .dpk.  [default: the tuned name with .dpk, in this folder]",
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
    session: Session, base: str, tuned: tuple[str, ...], tuned_each: tuple[str, ...], output: str | None,
    density: float | None, top_k: int | None, threshold: float | None, rule: str | None, values: str,
    budget: str | None, target_error: float | None, rank: int | None, importance: str | None, positions: str,
    profile: str, base_name: str | None, base_revision: str | None, meta: tuple[tuple[str, str], ...],
    rename: tuple[tuple[Any, str], ...], no_layout: bool, files: tuple[str, ...], no_files: bool, code: bool,
    sha256: bool, allow_removed: bool, force: bool,
) -> None:  # fmt: skip
    """Store TUNED as its difference from BASE.

    Without further options the diff is exact: applying it gives every bit back, and safetensors files byte for
    byte. Keeping only some entries, or storing values in fewer bits, makes it lossy.

    Of several TUNED each becomes the diff it would be by itself. If some fail, the others are stored, and the exit code
    is that of the first that failed.
    """
    metadata = dict(meta)
    if len(metadata) != len(meta):
        raise click.UsageError("--meta: a key stands there twice")
    if no_files and files:
        raise click.UsageError("--no-files and --files do not go together: it is --files none")
    choices: dict[str, Any] = {
        "density": density, "top_k": top_k, "threshold": threshold, "rule": rule, "values": values, "budget": budget,
        "target_error": target_error, "rank": rank, "importance": importance, "positions": positions,
        "profile": profile, "rename": rename or None, "allow_removed": allow_removed, "layout": not no_layout,
        "files": "none" if no_files else files or "all", "code": code, "sha256": sha256, "base_name": base_name,
        "base_revision": base_revision, "threads": session.threads,
    }  # fmt: skip
    if tuned_each or len(tuned) != 1:
        store_several(session, base, tuned, tuned_each, output, choices, metadata, force)
    else:
        _store(session, base, tuned[0], output, choices, metadata, force)


def _store(
    session: Session, base: str, tuned: str, output: str | None, choices: dict[str, Any], metadata: dict[str, str],
    force: bool,
) -> None:  # fmt: skip
    """Store one fine-tune."""
    from diffpack.extraction.choices import options_of

    target = output or default_output(tuned)
    piped = target == STDIO
    options_of(**choices)  # what does not fit is refused before a file is opened
    check_output(session, target, [base, tuned, choices["importance"]], force)
    import diffpack

    before, after = open_checkpoint(session, base), open_checkpoint(session, tuned)
    session.output = f"a temporary file in {tempfile.gettempdir()}" if piped else target
    with watched(session, "scanning") as progress:
        diff = diffpack.extract(
            before, after, None if piped else target, **choices, metadata=metadata, force=force, progress=progress
        )
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


def default_output(tuned: str) -> str:
    """The tuned checkpoint's name with `.dpk`, as the library calls it. Raises its `UsageError`."""
    from diffpack.checkpoints.collection import own_name

    return f"{own_name(tuned)}.dpk"

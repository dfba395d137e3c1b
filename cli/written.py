"""What verbs that write a diff from other diffs share: their options, where the diff goes, and what is said of it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from .options import (
    STDIO,
    Assignment,
    CheckpointPath,
    DiffPath,
    F,
    OutputPath,
    Session,
    force_option,
    read_diff,
)
from .output import Report, emit, emit_json, notes, tell_left_out, warn
from .progress import Callback, watched
from .stored import KEYS, as_text, describe

if TYPE_CHECKING:
    from diffpack import Checkpoint, Diff

__all__ = ["KEYS", "diffs_argument", "needed_base", "read_diffs", "write", "writing_options"]

_PROFILES = ("compact", "portable")

diffs_argument = click.argument("diffs", nargs=-1, required=True, type=DiffPath(), metavar="DIFF...")
needed_base = click.option(
    "--base", type=CheckpointPath(), metavar="BASE", help="The base, for what the diffs alone do not tell."
)


def writing_options(function: F) -> F:
    """Add -o, --profile, --meta and --force."""
    output = click.option(
        "-o", "--output", required=True, type=OutputPath(), metavar="OUT",
        help="The diff to write; - is standard output.",
    )  # fmt: skip
    profile = click.option(
        "--profile", type=click.Choice(_PROFILES), default="compact", show_default=True,
        help="portable: zstd alone, for readers without pco.",
    )  # fmt: skip
    meta = click.option(
        "--meta", multiple=True, type=Assignment(), metavar="KEY=VALUE", help="Keep a note. Repeatable."
    )
    return output(profile(meta(force_option(function))))


def read_diffs(diffs: Sequence[str]) -> list[Any]:
    """What the library takes as diffs; one may come from standard input."""
    if list(diffs).count(STDIO) > 1:
        raise click.UsageError("standard input is one diff, not several")
    return [read_diff(diff) for diff in diffs]


def notes_of(meta: Sequence[tuple[str, str]]) -> dict[str, str] | None:
    """The user's notes; None if there are none."""
    metadata = dict(meta)
    if len(metadata) != len(meta):
        raise click.UsageError("--meta: a key stands there twice")
    return metadata or None


def write(
    session: Session,
    output: str,
    doing: str,
    make: Callable[[str | None, Callback], Diff],
    more: Callable[[Report], tuple[Report, str]] | None = None,
    *,
    checkpoints: Sequence[Checkpoint | None] = (),
    remarks: Sequence[str] = (),
    left_out: Callable[[Diff], Sequence[str]] = lambda _: (),
) -> None:
    """Let `make` write a diff to a path (None: a temporary file) and tell about it.

    `more` gives further members of the report, and further lines of the text; `checkpoints` are those read, whose
    notes are told, as are the `remarks` that `make` leaves, and what `left_out` finds that the diff does not keep.
    """
    piped = output == STDIO
    session.output = f"a temporary file in {tempfile.gettempdir()}" if piped else output
    with watched(session, doing) as progress:
        diff = make(None if piped else output, progress)
        session.output, session.written = None, None if piped else output
        told = [*(note for item in checkpoints if item is not None for note in item.notes), *remarks]
        lost = left_out(diff)
        report = describe(diff, output, told, progress, lost)
    notes(session, told)
    tell_left_out(session, lost)
    members, text = more(report) if more is not None else ({}, "")
    if piped:
        session.output = "standard output"
        diff.copy_to(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    if session.json:
        emit_json(report | members)
    elif not session.quiet:
        (warn if piped else emit)(as_text(report) + text)

"""`diffpack rename`: the same diff, whose result has other names."""

from __future__ import annotations

from typing import Any

import click

from .options import Session, diff_argument, global_options, opened, read_diff, rename_option
from .progress import Callback
from .written import KEYS, needed_base, notes_of, write, writing_options

__all__ = ["KEYS", "command"]


@click.command()
@diff_argument
@rename_option("Names of the result starting with OLD start with NEW;", required=True)
@needed_base
@writing_options
@global_options
@click.pass_obj
def command(
    session: Session, diff: str, rename: tuple[tuple[Any, str], ...], base: str | None, output: str, profile: str,
    meta: tuple[tuple[str, str], ...], force: bool,
) -> None:  # fmt: skip
    """Write a diff of the same base whose result has other names, and the same bits.

    The fingerprint of the result depends on the names of all tensors, and those that DIFF does not change only the base
    has: so --base is needed, unless DIFF was merged without its base. DIFF may be - for standard input.
    """
    notes, source = notes_of(meta), read_diff(diff)
    import diffpack

    checkpoint = opened(session, base)
    remarks: list[str] = []

    def make(path: str | None, progress: Callback) -> diffpack.Diff:
        renamed = diffpack.rename(
            source, rename, path, base=checkpoint, profile=profile, metadata=notes, threads=session.threads,
            force=force, progress=progress,
        )  # fmt: skip
        remarks.extend(renamed.notes)
        return renamed.diff

    write(session, output, "renaming", make, checkpoints=[checkpoint], remarks=remarks)

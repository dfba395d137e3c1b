"""`diffpack invert`: an exact diff -> its undo."""

from __future__ import annotations

import click

from .destination import check_output
from .options import Session, diff_argument, global_options, opened, read_diff
from .progress import Callback
from .written import KEYS, needed_base, notes_of, write, writing_options

__all__ = ["KEYS", "command"]


@click.command()
@diff_argument
@needed_base
@writing_options
@global_options
@click.pass_obj
def command(
    session: Session, diff: str, base: str | None, output: str, profile: str, meta: tuple[tuple[str, str], ...],
    force: bool,
) -> None:  # fmt: skip
    """Make the exact undo of an exact DIFF: on its result it gives the base back, bit for bit.

    Removed, cut, retyped, renamed and tied tensors need --base; so do the base's file layout and side files where the
    tuned checkpoint had others. DIFF may be - for standard input.
    """
    notes, source = notes_of(meta), read_diff(diff)
    check_output(session, output, [diff, base], force)
    import diffpack

    checkpoint = opened(session, base)

    def make(path: str | None, progress: Callback) -> diffpack.Diff:
        return diffpack.invert(
            source, path, base=checkpoint, profile=profile, metadata=notes, threads=session.threads, force=force,
            progress=progress,
        )  # fmt: skip

    write(
        session, output, "inverting", make, checkpoints=[checkpoint],
        left_out=lambda _: [] if checkpoint is None else checkpoint.left_out,
    )  # fmt: skip

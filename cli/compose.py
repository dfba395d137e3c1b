"""`diffpack compose`: a chain of exact diffs -> one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .destination import check_output
from .options import Session, global_options, opened
from .progress import Callback
from .written import KEYS, diffs_argument, needed_base, notes_of, read_diffs, write, writing_options

if TYPE_CHECKING:
    from diffpack import Diff

__all__ = ["KEYS", "command"]


@click.command()
@diffs_argument
@needed_base
@writing_options
@global_options
@click.pass_obj
def command(
    session: Session, diffs: tuple[str, ...], base: str | None, output: str, profile: str,
    meta: tuple[tuple[str, str], ...], force: bool,
) -> None:  # fmt: skip
    """Squash a chain of exact diffs into one with the same result.

    Each DIFF is made on the result of the one before it; a gap or a wrong order is refused (exit code 10). No model in
    between is made. One DIFF may be - for standard input.
    """
    notes, sources = notes_of(meta), read_diffs(diffs)
    check_output(session, output, [*diffs, base], force)
    import diffpack

    checkpoint = opened(session, base)

    def make(path: str | None, progress: Callback) -> diffpack.Diff:
        return diffpack.compose(
            sources, path, base=checkpoint, profile=profile, metadata=notes, threads=session.threads, force=force,
            progress=progress,
        )  # fmt: skip

    write(session, output, "composing", make, checkpoints=[checkpoint], left_out=_left_out)


def _left_out(diff: Diff) -> list[str]:
    """What of the last tuned checkpoint is in no diff: as its own says."""
    from diffpack.diff.summary import LEFT_OUT

    said = diff.manifest.recipe.get(LEFT_OUT)
    return [] if said is None else [said]

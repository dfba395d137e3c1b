"""Where an output goes: refused, if it cannot go there, before what it is made of is opened."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from .options import STDIO, Session


def refuse_output(output: str, inputs: Sequence[str], force: bool, *, folder: bool = False) -> None:
    """Let the library refuse an output that exists or is an input; `folder` says whether it may be one.

    What it is not in the way of is not said: the library looks again, and at all that is read. Raises its `UsageError`.
    """
    from diffpack.checkpoints.overwriting import refuse_overwriting

    read = [Path(item) for item in inputs if item != STDIO]
    refuse_overwriting(Path(output), [path for path in read if folder or path.is_file()], force, folder=folder)


def check_output(session: Session, output: str, inputs: Sequence[str | None], force: bool) -> None:
    """Refuse a diff's place, `-` for standard output; of the inputs those that are not given are None.

    Raises `click.UsageError` and the library's `UsageError`.
    """
    if output != STDIO:
        refuse_output(output, [item for item in inputs if item is not None], force)
    elif session.json:
        raise click.UsageError("-o - and --json both want standard output")
    elif sys.stdout is None or sys.stdout.isatty():
        raise click.UsageError(
            "a diff is not written to a terminal or into nothing; redirect standard output or name a file with -o"
        )

"""`diffpack extract` of several fine-tunes of one base: a diff of each, in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import report as tell_error
from .options import STDIO, Session, open_checkpoint
from .output import Report, advise, emit, emit_json, listed, notes, plural, tell_left_out, warn
from .progress import Run, watched
from .stored import as_text, describe

if TYPE_CHECKING:
    from diffpack.extraction.many import Extracted

KEYS_OF_SEVERAL = {
    "diffs[]": "of each that was stored: the members above, and ...",
    "diffs[].tuned": "... the name of the tuned checkpoint",
    "failed[].tuned": "the name of one that could not be stored ...",
    "failed[].error": "... and why",
    "failed[].exit_code": "what the exit code would be, were it the only one",
    "notes": "remarks about the base",
    "passed_over": "what of the folders of --tuned-each is no checkpoint",
}
"""What `--json` prints of several."""


def store_several(
    session: Session, base: str, tuned: Sequence[str], folders: Sequence[str], output: str | None,
    choices: dict[str, Any], metadata: dict[str, str], force: bool,
) -> None:  # fmt: skip
    """Store each fine-tune; leave with the exit code of the first that fails, if one does."""
    if not tuned and not folders:
        raise click.UsageError("Missing option '--tuned'.")
    if output == STDIO:
        raise click.UsageError("several diffs do not go to standard output: name a folder with -o")
    from diffpack.extraction.choices import options_of
    from diffpack.extraction.many import extracted, named
    from diffpack.extraction.one_base import OneBase

    options, folder = options_of(**choices), Path(output or ".")
    found, others = _in_folders(folders, base)
    given = named([*tuned, *found])
    before = open_checkpoint(session, base)
    diffs: list[Report] = []
    failed: list[Report] = []
    with watched(session, "scanning", runs=len(given)) as run:
        made = extracted(
            OneBase.of(before, choices["importance"]), given, folder, options, metadata, force=force,
            mmap=not session.no_mmap, progress=run.next,
        )  # fmt: skip
        with run.aside():
            notes(session, before.notes)
            if others and not session.quiet:
                warn(f"diffpack: passed over: {listed(others, 'item')}")
        for item in made:
            if item.error is not None:
                failed.append(_failed(session, item, run))
                continue
            diffs.append(_stored(session, item, run))
            session.written = f"{folder} with {len(diffs)} of {plural(len(given), 'diff')}"
    if session.json:
        emit_json({"diffs": diffs, "failed": failed, "notes": list(before.notes), "passed_over": others})
    if failed:
        if not session.quiet:
            warn(f"diffpack: {len(failed)} of {len(given)} failed; {'the others are' if diffs else 'none is'} stored")
        click.get_current_context().exit(failed[0]["exit_code"])


def _in_folders(folders: Sequence[str], base: str) -> tuple[list[str], list[str]]:
    """The checkpoints in folders, and what is none of the fine-tunes there: the base, too."""
    from diffpack.checkpoints.collection import checkpoints_in

    found, others = [], []
    for folder in folders:
        inside, rest = checkpoints_in(Path(folder))
        own = [path for path in inside if path.resolve() == Path(base).resolve()]
        found += [str(path) for path in inside if path not in own]
        others += [str(Path(folder) / name) for name in rest] + [f"{path} (the base)" for path in own]
    return found, others


def _failed(session: Session, item: Extracted, run: Run) -> Report:
    """Tell why a fine-tune is not stored."""
    assert item.error is not None
    session.output = None if item.output is None else str(item.output)
    with run.aside():
        code = tell_error(item.error, session, item.name)
    session.output = None
    return {"tuned": item.name, "error": str(item.error), "exit_code": code}


def _stored(session: Session, item: Extracted, run: Run) -> Report:
    """Tell what was stored."""
    assert item.diff is not None
    assert item.tuned is not None
    checkpoint = item.tuned
    with item.diff as diff:
        remarks = [*checkpoint.notes, *checkpoint.advice]
        report = {"tuned": item.name} | describe(diff, str(item.output), remarks, run, checkpoint.left_out)
    with run.aside():
        notes(session, checkpoint.notes)
        tell_left_out(session, checkpoint.left_out)
        advise(session, checkpoint.advice)
        if not session.json and not session.quiet:
            emit(as_text(report))
    return report

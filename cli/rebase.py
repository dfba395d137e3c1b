"""`diffpack rebase`: the change a diff makes, carried over to another base."""

from __future__ import annotations

import click

from .destination import check_output
from .options import (
    CheckpointPath,
    Session,
    clip_option,
    diff_argument,
    global_options,
    open_checkpoint,
    opened,
    read_diff,
)
from .output import Report, fields, plural, safe
from .progress import Callback
from .written import KEYS as WRITTEN_KEYS
from .written import needed_base, notes_of, write, writing_options

KEYS = {
    **WRITTEN_KEYS,
    "carried_exactly": "names of tensors both bases have alike: carried over bit for bit",
    "carried_as_floats": "names of tensors that get the same float differences",
    "left_out": "object: name of a tensor that is left as the other base has it -> why",
}
"""What `--json` prints."""

_MOST_REASONS = 10


@click.command()
@diff_argument
@needed_base
@click.option(
    "--onto", required=True, type=CheckpointPath(), metavar="BASE", help="The other base, which the new diff is for."
)
@clip_option
@writing_options
@global_options
@click.pass_obj
def command(
    session: Session, diff: str, base: str | None, onto: str, output: str, profile: str, clip: bool,
    meta: tuple[tuple[str, str], ...], force: bool,
) -> None:  # fmt: skip
    """Make a diff that changes another base as DIFF changes its own, and tell what cannot be carried over.

    Tensors both bases have alike keep their exact change. Elsewhere float tensors get the same float differences, for
    which an exact diff needs --base, and the new diff is lossy. DIFF may be - for standard input.
    """
    notes, source = notes_of(meta), read_diff(diff)
    check_output(session, output, [diff, base, onto], force)
    import diffpack

    checkpoint, other = opened(session, base), open_checkpoint(session, onto)
    told: Report = {}
    remarks: list[str] = []

    def make(path: str | None, progress: Callback) -> diffpack.Diff:
        rebased = diffpack.rebase(
            source, other, path, base=checkpoint, clip=clip, profile=profile, metadata=notes, threads=session.threads,
            force=force, progress=progress,
        )  # fmt: skip
        remarks.extend(rebased.notes)
        told["carried_exactly"] = list(rebased.exact)
        told["carried_as_floats"] = list(rebased.as_floats)
        told["left_out"] = dict(rebased.left_out)
        return rebased.diff

    write(
        session, output, "rebasing", make, lambda _: (told, _text(told)), checkpoints=[checkpoint, other],
        remarks=remarks,
    )  # fmt: skip


def _text(told: Report) -> str:
    exact, floats, left_out = (told[key] for key in ("carried_exactly", "carried_as_floats", "left_out"))
    rows = [
        ("carried", f"{plural(len(exact), 'tensor')} bit for bit, {plural(len(floats), 'tensor')} as float differences")
    ]
    shown = [f"{safe(name)}: {safe(reason)}" for name, reason in sorted(left_out.items())]
    rows += [("left out" if at == 0 else "", text) for at, text in enumerate(shown[:_MOST_REASONS])]
    if len(shown) > _MOST_REASONS:
        rows.append(("", f"and {len(shown) - _MOST_REASONS} more; --json lists them"))
    return "\n" + "\n".join(fields(rows))

"""`diffpack apply`: a base and a diff -> the result."""

from __future__ import annotations

from pathlib import Path

import click

from .destination import refuse_output
from .options import (
    STDIO,
    OutputPath,
    Session,
    base_option,
    diff_argument,
    force_option,
    global_options,
    open_checkpoint,
    read_diff,
)
from .output import Report, emit, emit_json, fields, mode, notes, plural, safe, size, tell_left_out
from .progress import watched
from .signatures import KEYS_SIGNED, signature_option, signed_as_option, signed_line, signed_members, wanted

KEYS = {
    "path": "where the result was written",
    "tensors": "how many tensors it has",
    "bytes": "bytes of their data",
    "exact": "whether it is the tuned checkpoint bit for bit",
    "verified": "whether base and result were compared with the recorded fingerprints",
    "fingerprint": "the result's content hash, or null if it was not verified",
    "sealed": "whether the diff records that hash (a merge made without the base does not)",
    "notes": "remarks about the base",
    "already": "whether the base was the result before: it was written as it is",
    "untold": "what of the tuned files neither the diff nor the base tells (an HDF5 file's attributes, say)",
    **KEYS_SIGNED,
}
"""What `--json` prints."""


@click.command()
@base_option
@diff_argument
@click.option(
    "-o", "--output", required=True, type=OutputPath(), metavar="OUT",
    help="The result: its ending chooses the layout (.safetensors, .bin, .pt, .h5, .npz), any other name is a folder.",
)  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Check only the base tensors that the diff touches.")
@click.option("--no-files", is_flag=True, help="Leave side files (config, tokenizer) out.")
@click.option(
    "--code", is_flag=True, help="Write side files that are code; a diff that holds some is refused otherwise."
)
@click.option(
    "--require-signature", multiple=True, type=click.Path(), metavar="KEY",
    help="Refuse a diff that none of these signed: a public SSH key or an allowed_signers file. Repeatable.",
)  # fmt: skip
@signature_option
@signed_as_option
@force_option
@global_options
@click.pass_obj
def command(
    session: Session, base: str, diff: str, output: str, no_verify: bool, no_files: bool, code: bool,
    require_signature: tuple[str, ...], signature: str | None, signed_as: str | None, force: bool,
) -> None:  # fmt: skip
    """Write the result of DIFF on BASE, whole or not at all.

    An exact diff gives the tuned checkpoint back bit for bit, and safetensors files byte for byte. A BASE that is the
    result already is written as it is. DIFF may be - for standard input.
    """
    if output == STDIO:
        raise click.UsageError("a result is written out of order, not to standard output: name a file or folder")
    signers = wanted("--require-signature", require_signature, signature, signed_as, diff)
    source = read_diff(diff)
    if not (force and Path(output).is_dir()):  # what a folder to replace may hold, the diff says
        refuse_output(output, [base, diff], force, folder=True)
    _refuse_ending(output, base)
    import diffpack

    before = open_checkpoint(session, base)
    session.output = output
    with watched(session, "applying") as progress:
        applied = diffpack.apply(
            before, source, output, verify=not no_verify, files=not no_files, code=code,
            require_signature=signers, threads=session.threads, force=force, progress=progress,
        )  # fmt: skip
        session.output, session.written = None, output
    notes(session, before.notes)
    tell_left_out(session, applied.untold, "not known")
    report: Report = {
        "path": output,
        "tensors": applied.tensors,
        "bytes": applied.nbytes,
        "exact": applied.exact,
        "verified": applied.fingerprint is not None,
        "fingerprint": applied.fingerprint,
        "sealed": applied.sealed,
        "notes": before.notes,
        "already": applied.already,
        "untold": applied.untold,
        **signed_members(applied.signed),
    }
    if session.json:
        emit_json(report)
    elif not session.quiet:
        emit(as_text(report))


def _refuse_ending(output: str, base: str) -> None:
    from diffpack.result.outputs import refuse_ending

    refuse_ending(output, base_is_folder=Path(base).is_dir())


def as_text(report: Report) -> str:
    """What was written, for people."""
    counts = f"{plural(report['tensors'], 'tensor')}, {size(report['bytes'])}"
    title = f"{safe(report['path'])}: {counts}, {mode(report['exact'])}"
    how = "verified" if report["sealed"] else "(base verified; the diff records no result)"
    verified = f"{report['fingerprint']} {how}" if report["verified"] else "not verified (--no-verify)"
    already = "is the result of the diff already: written as it is" if report["already"] else ""
    return "\n".join([title, *fields([("base", already), ("result", verified), ("signed", signed_line(report))])])

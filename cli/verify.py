"""`diffpack verify`: every checksum and rule of a diff; with the base, also the result."""

from __future__ import annotations

import click

from .options import STDIO, Session, diff_argument, global_options, opened, optional_base, read_diff
from .output import Report, emit, emit_json, fields, mode, plural, safe
from .progress import watched
from .signatures import KEYS_SIGNED, signature_option, signed_as_option, signed_line, signed_members, wanted

KEYS = {
    "path": "the diff",
    "ok": "true: a diff that is not ok is an error (exit codes 10 to 13, or 1)",
    "exact": "whether applying it gives the tuned checkpoint bit for bit",
    "chunks": "how many pieces were checked",
    "records": "how many tensors something is stored of",
    "base_checked": "whether it was applied to --base",
    "fingerprint": "the result's content hash as computed, or null without --base",
    "sealed": "whether the diff records that hash (a merge made without the base does not)",
    **KEYS_SIGNED,
}
"""What `--json` prints."""


@click.command()
@diff_argument
@optional_base
@click.option(
    "--key", multiple=True, type=click.Path(), metavar="KEY",
    help="Also check that one of these signed it: a public SSH key or an allowed_signers file. Repeatable.",
)  # fmt: skip
@signature_option
@signed_as_option
@global_options
@click.pass_obj
def command(
    session: Session, diff: str, base: str | None, key: tuple[str, ...], signature: str | None, signed_as: str | None
) -> None:
    """Check every checksum and rule of DIFF; with --base also that applying it gives the recorded result.

    With --key also who signed it. Writes nothing; the exit code tells (0: whole, 10: not its base, 11: damaged, 12:
    needs a newer diffpack, 13: not signed so). DIFF may be - for standard input.
    """
    signers = wanted("--key", key, signature, signed_as, diff)
    source = read_diff(diff)
    import diffpack

    with watched(session, "verifying"):
        verified = diffpack.verify(source, opened(session, base), require_signature=signers, threads=session.threads)
    report: Report = {
        "path": "standard input" if diff == STDIO else diff,
        "ok": True,
        "exact": verified.exact,
        "chunks": verified.chunks,
        "records": verified.records,
        "base_checked": verified.result is not None,
        "fingerprint": verified.result,
        "sealed": verified.sealed,
        **signed_members(verified.signed),
    }
    if session.json:
        emit_json(report)
    elif not session.quiet:
        emit(as_text(report))


def as_text(report: Report) -> str:
    """What was checked, for people."""
    counts = f"{plural(report['records'], 'record')} in {plural(report['chunks'], 'chunk')}"
    how = "as recorded" if report["sealed"] else "(not recorded)"
    result = f"{report['fingerprint']} {how}" if report["base_checked"] else "not computed; --base BASE does"
    title = f"{safe(report['path'])}: whole, {mode(report['exact'])}, {counts}"
    return "\n".join([title, *fields([("result", result), ("signed", signed_line(report))])])

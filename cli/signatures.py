"""What verbs that ask for a diff's signature share: their options, and what is said of who signed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .options import STDIO
from .output import Report, safe

if TYPE_CHECKING:
    from diffpack.signing import RequiredSignature, Signed

KEYS_SIGNED = {
    "signed_by": "fingerprint of the key that signed it, as `ssh-keygen -l` prints it; null if none was asked for",
    "principals": "whose key that is, by the allowed_signers file",
    "signed_as": 'the file\'s name that the signature binds, "" if any; null if none was asked for',
}
"""What `--json` prints of a signature."""

signature_option = click.option(
    "--signature", type=click.Path(), metavar="FILE", help="The signature  [default: DIFF.sig]"
)
signed_as_option = click.option(
    "--signed-as", metavar="NAME", help="What the diff's file was called when it was signed  [default: as now]"
)


def wanted(
    option: str, signers: Sequence[str], signature: str | None, signed_as: str | None, diff: str
) -> RequiredSignature | None:
    """What the library is to ask of a diff's signature; None if no `option` names whose. Raises `click.UsageError`."""
    if not signers:
        if signature is not None or signed_as is not None:
            raise click.UsageError(f"{option} says whose signature counts; without it none is looked at")
        return None
    if diff == STDIO and signature is None:
        raise click.UsageError("a diff from standard input has no signature beside it: --signature FILE names it")
    from diffpack.signing import RequiredSignature

    return RequiredSignature(list(signers), signature, signed_as)


def signed_members(signed: Signed | None) -> Report:
    """The members of the report."""
    if signed is None:
        return {"signed_by": None, "principals": [], "signed_as": None}
    return {"signed_by": signed.fingerprint, "principals": list(signed.principals), "signed_as": signed.name}


def signed_line(report: Report) -> str:
    """Who signed, for people; "" if that was not asked for."""
    if report["signed_by"] is None:
        return ""
    who = f" ({safe(', '.join(report['principals']))})" if report["principals"] else ""
    return f"by {report['signed_by']}{who}, {binding(report['signed_as'])}"


def binding(name: str) -> str:
    """Say which name a signature binds."""
    return f"as {safe(name)}" if name else "under any name"

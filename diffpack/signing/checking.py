"""Who signed a diff, and whether that is one of those whose signature is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from diffpack.diff.diff import Diff, DiffLike, open_diff
from diffpack.errors import SignatureError, UsageError
from diffpack.signing.keys import fingerprint
from diffpack.signing.making import ENDING
from diffpack.signing.message import is_plain, message, name_of
from diffpack.signing.signers import SignersLike, read_signers
from diffpack.signing.sshsig import Signature
from diffpack.support.names import printable

SignatureLike = str | os.PathLike[str] | bytes | Signature
"""A signature's file by its path, its bytes, or a signature."""


@dataclass(frozen=True)
class Signed:
    """Who signed a diff: the key's fingerprint as `ssh-keygen -l` prints it, and to whom it belongs.

    `principals` are those of the allowed_signers line, none for a bare key. `name` is the one it is signed under, ""
    if the signature holds under any.
    """

    fingerprint: str
    principals: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class RequiredSignature:
    """Whose signature a diff must have, for calls that take `require_signature`; of one of `signers`.

    `signature` is where it is (None: the diff's path with `.sig` behind it); `name` what the diff was called when it
    was signed (None: as it is now).
    """

    signers: SignersLike
    signature: SignatureLike | None = None
    name: str | None = None


SignatureWanted = RequiredSignature | SignersLike | None
"""What calls take as `require_signature`: None asks for no signature."""


def check_signature(
    diff: DiffLike,
    signers: SignersLike,
    signature: SignatureLike | None = None,
    *,
    name: str | None = None,
    now: datetime | None = None,
) -> Signed:
    """Say who signed a diff. Raises `SignatureError` unless it is one of `signers`.

    `signers`, `signature` and `name` are those of `RequiredSignature`. `now` is the time at which lines with
    `valid-after` and `valid-before` must be good (None: the clock's), with its zone. What is checked is the opened
    `Diff`, by the manifest it has in memory: give that to `apply` or `load`, and what was checked is what is used. Its
    chunks are checked when they are read; `verify` reads them all.

    Raises `UsageError` (no key in `signers`, a line that is not understood, a diff without a path and no
    `signature`), `DiffpackError` and `MissingDependencyError` (the extra `[sign]`) as well.
    """
    opened = open_diff(diff)
    trusted = read_signers(signers)
    read, where = _signature(opened, signature)
    called = name_of(opened) if name is None else name
    names = [called, ""] if called and is_plain(called) else [""]
    bound = next((item for item in names if read.fits(message(opened, item))), None)
    if bound is None:
        raise _other_diff(opened, where, called)
    lines = [signer for signer in trusted if signer.key == read.key]
    at = now or datetime.now(UTC)
    good = next((signer for signer in lines if not signer.objection(at)), None)
    if good is None:
        who = f"{where}: signed by {fingerprint(read.key)}"
        if lines:
            raise SignatureError(f"{who}, whose signature does not count: {lines[0].objection(at)}", hint="")
        raise SignatureError(f"{who}, which is no key whose signature counts")
    return Signed(fingerprint(read.key), good.principals, bound)


def _signature(diff: Diff, signature: SignatureLike | None) -> tuple[Signature, str]:
    """The signature of a diff, and what errors call it."""
    if signature is None and diff.path is None:
        raise UsageError(f"{diff.name}: is no file, beside which its signature could be: name that")
    match signature:
        case Signature():
            return signature, "the signature"
        case bytes():
            return Signature.from_bytes(signature), "the signature"
        case None:
            assert diff.path is not None
            path: str | os.PathLike[str] = Path(f"{diff.path}{ENDING}")
        case _:
            path = signature
    return Signature.open(path), printable(os.fspath(path))


def _other_diff(diff: Diff, where: str, called: str | None) -> SignatureError:
    under = f" under the name {called!r}" if called else ""
    hint = (
        "one of the two is another file's or was changed; if the diff was called otherwise when it was signed: "
        "--signed-as NAME; ssh-keygen signs what `diffpack sign DIFF --message` prints, not the file"
    )
    return SignatureError(f"{where}: not a signature of {diff.name}{under}", hint=hint)

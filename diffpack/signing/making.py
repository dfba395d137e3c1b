"""sign: a diff and a private key -> a signature, as a file beside it."""

from __future__ import annotations

import os
from pathlib import Path

from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.diff import DiffLike, files_behind, open_diff
from diffpack.errors import SignatureError, UsageError
from diffpack.signing.keys import KeyLike, Passphrase, private_key
from diffpack.signing.message import message, name_of
from diffpack.signing.sshsig import Signature
from diffpack.support.atomic import atomic_file

ENDING = ".sig"
"""What a diff's name and its signature's differ by, as with ssh-keygen."""


def sign(
    diff: DiffLike,
    key: KeyLike,
    path: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    passphrase: Passphrase = None,
    force: bool = False,
) -> Signature:
    """Sign a diff; with `path` the signature is written there, whole or not at all.

    `key` is the path of a private Ed25519 key of OpenSSH's, its file's bytes, or an `Ed25519PrivateKey` of
    `cryptography`; `passphrase` opens an encrypted one (or is called for it). The signature binds the diff's content
    and its file's name, or `name`; with "" it holds under any name. Same diff, name and key, same bytes.

    Raises `UsageError` (a diff without a name, a key that is none or is not opened, an existing output without
    `force`), `DiffpackError`, `CorruptFileError`, and `MissingDependencyError` without the extra `[sign]`.
    """
    opened = open_diff(diff)
    bound = signed_name(opened.name, name_of(opened) if name is None else name)
    text = message(opened, bound)
    read = [Path(key).expanduser()] if isinstance(key, str | os.PathLike) else []
    if path is not None:
        refuse_overwriting(Path(path), [*files_behind([opened]), *read], force, folder=False)
    made = Signature.make(private_key(key, passphrase), text)
    if not made.fits(text):  # a fault of the machine could give the key away
        raise SignatureError(f"{opened.name}: the signature that was made does not fit; nothing is written", hint="")
    if path is not None:
        with atomic_file(Path(path), replace=force) as file:
            file.write(made.to_bytes())
    return made


def signed_name(diff: str, name: str | None) -> str:
    """The name a diff is to be signed under. Raises `UsageError` if it has none."""
    if name is None:
        raise UsageError(f"{diff}: has no file's name to be signed under: give one, or none for any (name='')")
    return name

"""Ed25519 keys in OpenSSH's files, read by `cryptography`; a public key is known by its bytes in SSH's wire form."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from diffpack.errors import DiffpackError, MissingDependencyError, UsageError
from diffpack.signing.small_file import read_small

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_TYPE = "ssh-ed25519"
KeyLike: TypeAlias = "str | os.PathLike[str] | bytes | Ed25519PrivateKey"
Passphrase = str | Callable[[], str] | None
"""What an encrypted key is opened with: the words, or what asks for them when they are needed."""

_BEGINS = b"-----BEGIN "
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAKE_ONE = "`ssh-keygen -t ed25519` makes a key"
_BY_AGENT = (
    "`diffpack sign DIFF --message | ssh-keygen -Y sign -n diffpack -f KEY.pub > DIFF.sig` signs with a key that an "
    "agent holds"
)


def private_key(key: KeyLike, passphrase: Passphrase = None) -> Ed25519PrivateKey:
    """Load a private key: a file's path, its bytes, or the key itself.

    Raises `UsageError` for what is no Ed25519 key of OpenSSH's, or the wrong passphrase; `DiffpackError` if the file
    cannot be read; `MissingDependencyError` without `cryptography`, and for encrypted keys without `bcrypt`.
    """
    need_cryptography()
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    if isinstance(key, Ed25519PrivateKey):
        return key
    where = "the key" if isinstance(key, bytes) else os.fspath(key)
    data = key if isinstance(key, bytes) else _read(key)
    _refuse_no_private_key(data, where)
    words = None
    if _is_encrypted(data):
        _need_bcrypt()
        words = passphrase() if callable(passphrase) else passphrase
        if not words:
            raise UsageError(f"{where}: an encrypted key, and no passphrase was given", hint=_BY_AGENT)
    try:
        loaded = load_ssh_private_key(data, None if words is None else words.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidTag) as error:
        if words is not None and not isinstance(error, UnsupportedAlgorithm):
            raise UsageError(f"{where}: the passphrase does not open it, or the key is damaged") from None
        raise UsageError(f"{where}: cannot be read as a key: {error}") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise UsageError(f"{where}: a key of another kind than {KEY_TYPE}", hint=_MAKE_ONE)
    return loaded


def public_of(key: Ed25519PrivateKey) -> bytes:
    """The public key of a private one, in wire form."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    line: bytes = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def public_key(wire: bytes) -> Ed25519PublicKey:
    """Load a public key in wire form. Raises `ValueError` if it is not an Ed25519 one."""
    need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        loaded = load_ssh_public_key(KEY_TYPE.encode() + b" " + base64.b64encode(wire))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(loaded, Ed25519PublicKey):
        raise ValueError(f"not a key of the kind {KEY_TYPE}")
    return loaded


def fingerprint(wire: bytes) -> str:
    """A public key's name, as `ssh-keygen -l` prints it: `SHA256:` and 43 letters."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_small(path, "private key")
    except FileNotFoundError as error:
        raise DiffpackError(f"{path}: no such key", hint=_MAKE_ONE) from error


def _refuse_no_private_key(data: bytes, where: str) -> None:
    """Raise `UsageError` for what is no file of a private key that OpenSSH writes today."""
    if data.startswith(_OPENSSH):
        return
    if data.startswith(_BEGINS):
        raise UsageError(f"{where}: no key in OpenSSH's own format, {_OPENSSH.decode()}", hint=_MAKE_ONE)
    if data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        raise UsageError(f"{where}: a public key; signing takes the private one", hint=_BY_AGENT)
    raise UsageError(f"{where}: no private key of OpenSSH's", hint=_MAKE_ONE)


def _is_encrypted(data: bytes) -> bool:
    """Whether a key's file names a cipher: the string behind its magic is not `none`."""
    try:
        inside = base64.b64decode(b"".join(data.split(b"-----")[2].split()))
    except (ValueError, IndexError):
        return False  # damaged, which loading it tells
    return not inside.removeprefix(b"openssh-key-v1\0").startswith(b"\0\0\0\x04none")


def _need_bcrypt() -> None:
    try:
        import bcrypt  # noqa: F401 - `cryptography` uses it
    except ImportError:
        raise MissingDependencyError("bcrypt", "sign", "a key with a passphrase") from None


def need_cryptography() -> None:
    """Raise `MissingDependencyError` if `cryptography` is not installed."""
    try:
        import cryptography  # noqa: F401 - those who use its parts import them
    except ImportError:
        raise MissingDependencyError("cryptography", "sign", "a signature") from None

"""Signatures as `ssh-keygen -Y sign` writes them (SSHSIG, OpenSSH's PROTOCOL.sshsig): armoured, detached, of one key.

::

    -----BEGIN SSH SIGNATURE-----       base64 of:
    SSHSIG, version 1 (u32)             then strings: public key, namespace, reserved, name of a hash, signature
    -----END SSH SIGNATURE-----

Signed is `SSHSIG` with the strings namespace, reserved, name of the hash, hash of the message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import struct
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffpack.errors import SignatureError
from diffpack.signing.keys import KEY_TYPE, fingerprint, public_key, public_of
from diffpack.signing.small_file import read_small
from diffpack.signing.wire import packed, unpacked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAMESPACE = "diffpack"
"""What keeps these signatures apart from those of the same key for git, files and mail."""
HASHES = ("sha512", "sha256")
"""Those SSHSIG has; the first is written."""

_MAGIC = b"SSHSIG"
_VERSION = struct.pack(">I", 1)
_ARMOUR = re.compile(rb"\A-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END SSH SIGNATURE-----[\r\n]*\Z")
_WIDTH = 70  # letters a line, as ssh-keygen writes them
_STRINGS = 5
_NOT_ONE = "make it anew: `diffpack sign DIFF --key KEY`"


@dataclass(frozen=True)
class Signature:
    """A signature by the public key `key` (wire form); `value` is the 64 bytes of Ed25519."""

    key: bytes
    value: bytes
    hash: str = HASHES[0]

    @property
    def fingerprint(self) -> str:
        """Its key's, as `ssh-keygen -l` prints it. Who it says it is by: nothing is checked here."""
        return fingerprint(self.key)

    @classmethod
    def make(cls, key: Ed25519PrivateKey, message: bytes) -> Signature:
        """Sign a message."""
        return cls(public_of(key), key.sign(_signed(message, HASHES[0])))

    def fits(self, message: bytes) -> bool:
        """Whether the owner of `key` signed this message."""
        from cryptography.exceptions import InvalidSignature

        try:
            public_key(self.key).verify(self.value, _signed(message, self.hash))
        except InvalidSignature:
            return False
        return True

    def to_bytes(self) -> bytes:
        """The file, as `ssh-keygen -Y sign` writes it."""
        value = packed(KEY_TYPE.encode(), self.value)
        strings = packed(self.key, NAMESPACE.encode(), b"", self.hash.encode(), value)
        text = base64.b64encode(_MAGIC + _VERSION + strings).decode()
        lines = "\n".join(textwrap.wrap(text, _WIDTH))
        return f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n".encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "the signature") -> Signature:
        """Read a file's bytes. Raises `SignatureError` for what is none, or one that cannot be checked here."""
        armour = _ARMOUR.match(data)
        if not armour:
            raise SignatureError(f"{where}: not a signature as ssh-keygen writes it", hint=_NOT_ONE)
        try:
            inside = base64.b64decode(b"".join(armour[1].split()), validate=True)
            head = _MAGIC + _VERSION
            if not inside.startswith(head):
                raise ValueError("another version of SSHSIG")
            key, namespace, reserved, hash_name, value = unpacked(inside.removeprefix(head), _STRINGS)
            return cls._of(key, namespace, reserved, hash_name, value)
        except (ValueError, binascii.Error) as error:
            raise SignatureError(f"{where}: cannot be used: {error}", hint=_NOT_ONE) from None

    @classmethod
    def _of(cls, key: bytes, namespace: bytes, reserved: bytes, hash_name: bytes, value: bytes) -> Signature:
        """A signature of its strings. Raises `ValueError` naming what is not as it must be."""
        kind = _first_string(key)
        if kind != KEY_TYPE.encode():
            raise ValueError(f"by a key of the kind {_shown(kind)}, only {KEY_TYPE} is known here")
        public_key(key)
        if namespace != NAMESPACE.encode():
            raise ValueError(f"made for {_shown(namespace)}, not for {NAMESPACE} (ssh-keygen -Y sign -n {NAMESPACE})")
        if reserved:
            raise ValueError("its reserved part is not empty")
        if hash_name.decode("ascii", "replace") not in HASHES:
            raise ValueError(f"by the hash {_shown(hash_name)}, which is not one of {', '.join(HASHES)}")
        algorithm, raw = unpacked(value, 2)
        if algorithm != KEY_TYPE.encode() or len(raw) != 64:
            raise ValueError("it holds no signature of Ed25519")
        return cls(key, raw, hash_name.decode())

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Signature:
        """Read a file. Raises `SignatureError`, also if there is none; `DiffpackError`, `UsageError` as files do."""
        try:
            data = read_small(path, "signature")
        except FileNotFoundError as error:
            hint = "`--signature FILE` names another place; who made the diff can sign it: `diffpack sign`"
            raise SignatureError(f"{path}: no such signature", hint=hint) from error
        return cls.from_bytes(data, str(path))


def _signed(message: bytes, hash_name: str) -> bytes:
    """What the key signs of a message."""
    digest = hashlib.new(hash_name, message).digest()
    return _MAGIC + packed(NAMESPACE.encode(), b"", hash_name.encode(), digest)


def _first_string(data: bytes) -> bytes:
    return data[4 : 4 + int.from_bytes(data[:4])]


def _shown(data: bytes) -> str:
    """Bytes of a file as a short text."""
    return ascii(data[:40].decode("latin-1"))

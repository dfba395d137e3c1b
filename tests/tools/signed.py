"""Keys of OpenSSH's made here, and what ssh-keygen made once, for the tests of signatures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

import diffpack
from tests.tools import ROOT

FROZEN = ROOT / "tests" / "oracles" / "signatures"
"""What tests/oracles/make_signature_oracles.py had ssh-keygen make."""
FROZEN_DIFF = ROOT / "fixtures" / "v1.0" / "alias.dpk"
PASSPHRASE = "words of a test"  # noqa: S105 - it keeps nothing

BASE = {"w": np.zeros(300, np.float32), "b": np.zeros(7, np.float32)}


class Key(NamedTuple):
    """A private key's file, and its public key's beside it."""

    private: Path
    public: Path

    @property
    def line(self) -> str:
        """The public key as it stands in files."""
        return self.public.read_text().strip()


def make_key(folder: Path, name: str, passphrase: str = "") -> Key:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    made = Key(folder / name, folder / f"{name}.pub")
    made.private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, locked))
    made.private.chmod(0o600)  # ssh-keygen refuses keys that others may read
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    made.public.write_bytes(public + f" {name}@test\n".encode())
    return made


def make_diff(path: Path, value: float = 1.0) -> Path:
    """Store BASE with other values as a diff."""
    tuned = {name: array + np.float32(value) for name, array in BASE.items()}
    diffpack.extract(BASE, tuned, path).close()
    return path

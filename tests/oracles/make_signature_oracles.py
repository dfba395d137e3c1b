"""Freeze keys and signatures that OpenSSH's ssh-keygen makes, for tests/signing.

    python tests/oracles/make_signature_oracles.py

Written once, with OpenSSH 9.2: keys are random, so another run writes others. They are good for nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "signatures"
DIFF = ROOT / "fixtures" / "v1.0" / "alias.dpk"
PASSPHRASE = "words of a test"  # noqa: S105 - it keeps nothing


def keygen(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["ssh-keygen", *map(str, arguments)], input=stdin, capture_output=True, check=True)
    return done.stdout


def main() -> None:
    FOLDER.mkdir()
    for name, kind, passphrase in (("plain", "ed25519", ""), ("locked", "ed25519", PASSPHRASE), ("rsa", "rsa", "")):
        keygen("-q", "-t", kind, "-N", passphrase, "-C", f"{name}@test", "-f", FOLDER / name)
    message = subprocess.run(
        [sys.executable, "-m", "diffpack", "sign", DIFF, "--message"], capture_output=True, check=True
    ).stdout
    (FOLDER / "message.txt").write_bytes(message)
    for name, key, text, *more in (
        ("sha512", "plain", message),
        ("sha256", "plain", message, "-O", "hashalg=sha256"),
        ("rsa", "rsa", message),
        ("whole-file", "plain", DIFF.read_bytes()),
    ):
        (FOLDER / f"{name}.sig").write_bytes(
            keygen("-Y", "sign", "-q", "-n", "diffpack", *more, "-f", FOLDER / key, stdin=text)
        )
    (FOLDER / "namespace.sig").write_bytes(
        keygen("-Y", "sign", "-q", "-n", "file", "-f", FOLDER / "plain", stdin=message)
    )
    (FOLDER / "fingerprints.txt").write_bytes(
        b"".join(keygen("-l", "-f", FOLDER / f"{name}.pub") for name in ("plain", "locked"))
    )


if __name__ == "__main__":
    main()

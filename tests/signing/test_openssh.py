"""ssh-keygen checks what is signed here, and what it signs is checked here; what it made once is read for ever."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

import diffpack
from diffpack.errors import SignatureError
from diffpack.signing import Signature
from diffpack.signing.message import message
from tests.tools.command_line import ok
from tests.tools.signed import FROZEN, FROZEN_DIFF, PASSPHRASE, Key, make_diff, make_key

pytest.importorskip("cryptography")
pytest.importorskip("bcrypt")
needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
NAMES = ("diffpack", "sst2.dpk")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_diff(tmp_path / "sst2.dpk")
    return tmp_path


def keygen(*arguments: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, check=False, env=os.environ | environment, timeout=60
    )


def made_by_keygen(folder: Path, name: str, passphrase: str = "") -> Key:
    done = keygen("-q", "-t", "ed25519", "-N", passphrase, "-C", f"{name}@test", "-f", folder / name)
    assert done.returncode == 0, done.stderr
    return Key(folder / name, folder / f"{name}.pub")


def accepted_by_keygen(signers: Path, signature: Path, text: bytes, principal: str, *more: str) -> bool:
    arguments = ("-Y", "verify", "-n", "diffpack", *more, "-f", signers, "-I", principal, "-s", signature)
    return keygen(*arguments, stdin=text).returncode == 0


@needs_openssh
@pytest.mark.parametrize("maker", [make_key, made_by_keygen])
@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_ssh_keygen_checks_what_is_signed_here(work: Path, maker, passphrase: str) -> None:
    key = maker(work, "alice", passphrase)
    signature = diffpack.sign("sst2.dpk", key.private, "sst2.dpk.sig", passphrase=passphrase or None)
    (work / "allowed").write_text(f'a@b.org namespaces="diffpack" {key.line}\n')
    text = ok("sign", "sst2.dpk", "--message").encode()
    assert accepted_by_keygen(work / "allowed", work / "sst2.dpk.sig", text, "a@b.org")
    assert not accepted_by_keygen(work / "allowed", work / "sst2.dpk.sig", text + b" ", "a@b.org")
    assert signature.fingerprint.encode() in keygen("-l", "-f", key.public).stdout


@needs_openssh
@pytest.mark.parametrize("hashed", ["sha512", "sha256"])
def test_what_ssh_keygen_signs_is_checked_here(work: Path, hashed: str) -> None:
    key = made_by_keygen(work, "alice")
    text = ok("sign", "sst2.dpk", "--message").encode()
    done = keygen("-Y", "sign", "-n", "diffpack", "-O", f"hashalg={hashed}", "-f", key.private, stdin=text)
    (work / "sst2.dpk.sig").write_bytes(done.stdout)
    who = diffpack.check_signature("sst2.dpk", key.public)
    assert (who.fingerprint.encode() in keygen("-l", "-f", key.public).stdout, who.name) == (True, "sst2.dpk")
    if hashed == "sha512":  # the same, to the byte, since Ed25519 has no random part
        assert diffpack.sign("sst2.dpk", key.private).to_bytes() == done.stdout


@needs_openssh
@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="no agent")
def test_an_agent_signs_with_the_key_it_holds(work: Path) -> None:
    key = made_by_keygen(work, "alice")
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    agent = dict(re.findall(r"(SSH_\w+)=([^;]+);", started))
    try:
        subprocess.run(["ssh-add", "-q", key.private], env=os.environ | agent, check=True, capture_output=True)
        key.private.unlink()
        text = ok("sign", "sst2.dpk", "--message").encode()
        done = keygen("-Y", "sign", "-n", "diffpack", "-f", key.public, stdin=text, **agent)
        (work / "sst2.dpk.sig").write_bytes(done.stdout)
    finally:
        subprocess.run(["ssh-agent", "-k"], env=os.environ | agent, check=True, capture_output=True)
    assert diffpack.check_signature("sst2.dpk", key.public).name == "sst2.dpk"


LINES = (
    "a@b.org KEY",
    "a@b.org,c@d.org KEY a comment",
    '"a@b.org" KEY',
    'a@b.org namespaces="diffpack" KEY',
    'a@b.org namespaces="file,git" KEY',
    'a@b.org namespaces="file,diff*" KEY',
    'a@b.org namespaces="d?ffpack" KEY',
    'a@b.org namespaces="d??ffpack" KEY',
    'a@b.org namespaces="[d]iffpack" KEY',
    'a@b.org namespaces="*,!diffpack" KEY',
    'a@b.org namespaces="!diffpack,*" KEY',
    'a@b.org namespaces="!file" KEY',
    'a@b.org valid-after="20250601Z" KEY',
    'a@b.org valid-before="20250601Z" KEY',
    'a@b.org valid-after="20250601120000Z" KEY',
    'a@b.org valid-after="20250601120001Z" KEY',
    'a@b.org valid-before="20250601120000Z" KEY',
    'a@b.org valid-before="20250601115959Z" KEY',
    'a@b.org valid-before="202506011200Z",valid-after="2025060111Z" KEY',
    'a@b.org valid-after="202506011159",valid-before="202506011201" KEY',
    'a@b.org valid-after="20240101Z",namespaces="diffpack" KEY',
    'a@b.org NAMESPACES="diffpack" KEY',
    "# a@b.org KEY",
    'a@b.org namespaces="file" KEY\na@b.org KEY',
    "a@b.org OTHER\na@b.org KEY",
    "a@b.org OTHER",
    "  a@b.org KEY",
    "a@b.org\tKEY",
    'a@b.org\tnamespaces="diffpack"\tKEY',
    'a@b.org namespaces="a\\"b,diffpack" KEY',
    'a@b.org namespaces="a\\b,diffpack" KEY',
    'a@b.org namespaces="a\\" KEY',
    "a@b.org surprise KEY",
    "a@b.org namespaces KEY",
    'a@b.org namespaces="" KEY',
    "a@b.org",
    "a@b.org ssh-ed25519",
    "a@b.org ssh-ed25519 AAAA",
)


@needs_openssh
@pytest.mark.parametrize("line", LINES)
def test_a_list_of_signers_lets_in_whom_ssh_keygen_lets_in(work: Path, line: str, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    key, other = make_key(work, "alice"), make_key(work, "other")
    diffpack.sign("sst2.dpk", key.private, "sst2.dpk.sig")
    (work / "allowed").write_text(line.replace("KEY", key.line).replace("OTHER", other.line) + "\n")
    with diffpack.open("sst2.dpk") as diff:
        text = message(diff, "sst2.dpk")
    theirs = accepted_by_keygen(
        work / "allowed", work / "sst2.dpk.sig", text, "a@b.org", "-O", "verify-time=20250601120000Z"
    )
    try:
        diffpack.check_signature("sst2.dpk", "allowed", now=datetime(2025, 6, 1, 12, tzinfo=UTC))
        ours = True
    except diffpack.DiffpackError as error:
        assert isinstance(error, SignatureError) or error.exit_code == 2  # noqa: PT017 - which of the two is the line's
        ours = False
    assert ours == theirs


def test_what_it_made_once_is_read_for_ever() -> None:
    assert (FROZEN / "message.txt").read_bytes() == message(diffpack.open(FROZEN_DIFF), "alias.dpk")
    fingerprints = (FROZEN / "fingerprints.txt").read_text()
    for name in ("sha512", "sha256"):
        who = diffpack.check_signature(FROZEN_DIFF, FROZEN / "plain.pub", FROZEN / f"{name}.sig")
        assert f" {who.fingerprint} plain@test" in fingerprints
    for private, passphrase in (("plain", None), ("locked", PASSPHRASE)):
        made = diffpack.sign(FROZEN_DIFF, FROZEN / private, passphrase=passphrase)
        assert f" {made.fingerprint} {private}@test" in fingerprints
    assert diffpack.sign(FROZEN_DIFF, FROZEN / "plain").to_bytes() == (FROZEN / "sha512.sig").read_bytes()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rsa", "by a key of the kind 'ssh-rsa', only ssh-ed25519"),
        ("namespace", "made for 'file', not for diffpack"),
        ("whole-file", "not a signature of .*alias.dpk"),
    ],
)
def test_its_signatures_of_another_kind_are_refused_by_name(name: str, told: str) -> None:
    with pytest.raises(SignatureError, match=told):
        diffpack.check_signature(FROZEN_DIFF, FROZEN / "plain.pub", FROZEN / f"{name}.sig")


def test_a_signature_is_written_as_it_was_read() -> None:
    data = (FROZEN / "sha512.sig").read_bytes()
    assert Signature.from_bytes(data).to_bytes() == data
    assert Signature.from_bytes(data.replace(b"\n", b"\r\n")).to_bytes() == data

"""Keys that are opened or refused by name, and lists of signers whose restrictions are never passed over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import diffpack
from diffpack.errors import DiffpackError, SignatureError, UsageError
from diffpack.signing.signers import read_signers
from tests.tools.signed import FROZEN, PASSPHRASE, make_diff, make_key

pytest.importorskip("cryptography")
pytest.importorskip("bcrypt")
LINE = (FROZEN / "plain.pub").read_text().strip()
RSA = (FROZEN / "rsa.pub").read_text().strip()


@pytest.fixture
def diff(tmp_path: Path) -> Path:
    return make_diff(tmp_path / "d.dpk")


def test_a_key_is_a_path_its_bytes_or_itself(diff: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    data = (FROZEN / "plain").read_bytes()
    ways = (FROZEN / "plain", str(FROZEN / "plain"), data, load_ssh_private_key(data, None))
    assert len({diffpack.sign(diff, key).to_bytes() for key in ways}) == 1


def test_an_encrypted_key_wants_its_passphrase(diff: Path) -> None:
    asked = []

    def ask() -> str:
        asked.append(1)
        return PASSPHRASE

    assert diffpack.sign(diff, FROZEN / "locked", passphrase=ask) == diffpack.sign(
        diff, FROZEN / "locked", passphrase=PASSPHRASE
    )
    diffpack.sign(diff, FROZEN / "plain", passphrase=ask)
    assert asked == [1]  # only for the key that needs it
    with pytest.raises(UsageError, match="an encrypted key, and no passphrase"):
        diffpack.sign(diff, FROZEN / "locked")
    with pytest.raises(UsageError, match="the passphrase does not open it"):
        diffpack.sign(diff, FROZEN / "locked", passphrase="other")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((FROZEN / "plain.pub").read_bytes(), "a public key"),
        ((FROZEN / "rsa").read_bytes(), "another kind than ssh-ed25519"),
        (b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n", "no key in OpenSSH's own format"),
        (b"what is this", "no private key"),
        (b"", "no private key"),
        ((FROZEN / "plain").read_bytes()[:200], "cannot be read as a key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n-----END OPENSSH PRIVATE KEY-----\n", "cannot be read|encrypted"),
    ],
)
def test_what_is_no_such_key_is_refused_by_name(diff: Path, data: bytes, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        diffpack.sign(diff, data)


def test_a_damaged_key_is_ours_to_tell(diff: Path) -> None:
    whole = (FROZEN / "plain").read_bytes()
    good = diffpack.sign(diff, whole)
    for at in range(len(whole)):
        try:
            made = diffpack.sign(diff, whole[:at] + b"A" + whole[at + 1 :])
        except DiffpackError:
            continue
        assert made == good or made.key != good.key  # the comment changed; or the secret, which nobody's list has


def test_a_missing_key_or_list_is_told(diff: Path, tmp_path: Path) -> None:
    with pytest.raises(DiffpackError, match="nowhere: no such key"):
        diffpack.sign(diff, tmp_path / "nowhere")
    with pytest.raises(DiffpackError, match="nowhere: no such file of keys"):
        read_signers(tmp_path / "nowhere")


def test_an_output_is_not_taken_nor_an_input(diff: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path, "k")
    diffpack.sign(diff, key.private, tmp_path / "s")
    with pytest.raises(UsageError, match="exists already"):
        diffpack.sign(diff, key.private, tmp_path / "s")
    for path in (diff, key.private):
        before = path.read_bytes()
        with pytest.raises(UsageError, match="also an input"):
            diffpack.sign(diff, key.private, path, force=True)
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a/b", "a\nb", "\x1b[2J", "\udcff"])
def test_a_name_that_is_none_is_not_signed(diff: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not the plain name"):
        diffpack.sign(diff, FROZEN / "plain", name=name)


def test_one_name_has_one_spelling(diff: Path) -> None:
    composed, decomposed = "m\u00e9.dpk", "me\u0301.dpk"
    made = diffpack.sign(diff, FROZEN / "plain", name=composed)
    assert made == diffpack.sign(diff, FROZEN / "plain", name=decomposed)
    assert diffpack.check_signature(diff, FROZEN / "plain.pub", made, name=decomposed)


def test_a_diff_whose_own_name_cannot_be_signed_has_a_signature_under_any(tmp_path: Path) -> None:
    odd = make_diff(tmp_path / "a\nb.dpk")
    made = diffpack.sign(odd, FROZEN / "plain", name="")
    assert diffpack.check_signature(odd, FROZEN / "plain.pub", made).name == ""


def test_a_diff_without_a_name_is_signed_under_one_that_is_given(diff: Path) -> None:
    with pytest.raises(UsageError, match="no file's name"):
        diffpack.sign(diff.read_bytes(), FROZEN / "plain")
    assert diffpack.sign(diff.read_bytes(), FROZEN / "plain", name="d.dpk") == diffpack.sign(diff, FROZEN / "plain")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a@b.org cert-authority {LINE}", "list:2: the option cert-authority is not known here"),
        (f'a@b.org namespaces="diffpack",cert-authority {LINE}', "the option cert-authority"),
        (f'command="x" {LINE}', "no kind of key|neither a public key"),
        (f"a@b.org no-touch-required {LINE}", "the option no-touch-required"),
        (f'a@b.org valid-after="yesterday" {LINE}', "'yesterday' is not a time"),
        (f'a@b.org valid-after="20251301" {LINE}', "'20251301' is not a time"),
        (f'a@b.org valid-after="2025",valid-before="2024" {LINE}', "is not a time"),
        (f'a@b.org valid-after="20250102",valid-before="20250101" {LINE}', "valid-after is not before valid-before"),
        (f'a@b.org namespaces="a",namespaces="diffpack" {LINE}', "has no value, or two"),
        (f'a@b.org namespaces="diffpack {LINE}', "neither a public key|not options"),
        (f'a@b.org,"c@d.org" {LINE}', "neither a public key"),
        ("a@b.org ssh-ed25519 AAAA", "not a key of the kind ssh-ed25519, or a damaged one"),
        ("ssh-ed25519", "neither|not a key"),
        (f"a@b.org {RSA}", r"names no key of the kind ssh-ed25519 \(there are ssh-rsa\)"),
    ],
)
def test_a_line_that_is_not_understood_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "list"
    path.write_text(f"# who may\n{text}\n")
    with pytest.raises(UsageError, match=told):
        read_signers(path)


def test_a_private_key_is_no_list() -> None:
    with pytest.raises(UsageError, match="not a public key"):
        read_signers(FROZEN / "plain")


def test_keys_of_other_kinds_stand_there_and_let_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"r@b.org {RSA}\na@b.org,c@d.org {LINE}\n\n# end\n")
    (signer,) = read_signers(tmp_path / "list")
    assert (signer.principals, signer.where) == (("a@b.org", "c@d.org"), f"{tmp_path / 'list'}:2")


def test_nobody_is_not_anybody(diff: Path) -> None:
    for nobody in ([], b"", b"# all gone\n"):
        with pytest.raises(UsageError):
            diffpack.check_signature(diff, nobody, diffpack.sign(diff, FROZEN / "plain"))


def test_times_are_kept_to_by_the_clock(diff: Path) -> None:
    made = diffpack.sign(diff, FROZEN / "plain")
    now = datetime.now(UTC)
    past, future = ((now + timedelta(days=days)).strftime("%Y%m%dZ") for days in (-3, 3))
    for options, good in (
        (f'valid-after="{past}",valid-before="{future}"', True),
        (f'valid-after="{future}"', False),
        (f'valid-before="{past}"', False),
    ):
        signers = f"a@b.org {options} {LINE}\n".encode()
        if good:
            assert diffpack.check_signature(diff, signers, made).principals == ("a@b.org",)
        else:
            with pytest.raises(SignatureError, match="the keys:1: valid only"):
                diffpack.check_signature(diff, signers, made)

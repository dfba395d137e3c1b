"""What a required signature refuses: one line, exit code 13, nothing written; and no changed byte is let through."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

import diffpack
from diffpack.errors import CorruptFileError, SignatureError, UsageError
from diffpack.signing import RequiredSignature, Signature
from diffpack.signing.sshsig import NAMESPACE
from tests.fuzz.diffs import joined, parted
from tests.tools.signed import BASE, FROZEN, Key, make_diff, make_key

pytest.importorskip("cryptography")
pytest.importorskip("bcrypt")


@pytest.fixture
def alice(tmp_path: Path) -> Key:
    """A key; two diffs of it with their signatures are beside it."""
    key = make_key(tmp_path, "alice")
    for name, value in (("sst2.dpk", 1.0), ("mnli.dpk", 2.0)):
        diffpack.sign(make_diff(tmp_path / name, value), key.private, tmp_path / f"{name}.sig")
    return key


@pytest.fixture(params=["apply", "load", "verify"])
def use(request: pytest.FixtureRequest, tmp_path: Path):
    """Use sst2.dpk if it is signed as required."""

    def run(wanted) -> None:
        diff = tmp_path / "sst2.dpk"
        if request.param == "apply":
            diffpack.apply(BASE, diff, tmp_path / "out.npz", require_signature=wanted, force=True)
        elif request.param == "load":
            diffpack.load(BASE, diff, require_signature=wanted)
        else:
            diffpack.verify(diff, BASE, require_signature=wanted)

    return run


def refused(use, wanted, told: str, folder: Path) -> None:
    before = sorted(os.listdir(folder))
    with pytest.raises(SignatureError, match=told) as error:
        use(wanted)
    assert error.value.exit_code == 13
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(folder)) == before


def test_signed_as_required_it_is_used(alice: Key, use, tmp_path: Path) -> None:
    use(alice.public)
    use([make_key(tmp_path, "bob").public, alice.public])
    use(alice.public.read_bytes())
    use(RequiredSignature(alice.public, tmp_path / "sst2.dpk.sig", "sst2.dpk"))


def test_a_wrong_key_is_refused(alice: Key, use, tmp_path: Path) -> None:
    bob = make_key(tmp_path, "bob")
    refused(use, bob.public, "signed by SHA256:.*, which is no key whose signature counts", tmp_path)
    diffpack.sign(tmp_path / "sst2.dpk", bob.private, tmp_path / "sst2.dpk.sig", force=True)
    refused(use, alice.public, "signed by SHA256:.*, which is no key whose signature counts", tmp_path)


def test_a_missing_signature_is_refused(alice: Key, use, tmp_path: Path) -> None:
    (tmp_path / "sst2.dpk.sig").unlink()
    refused(use, alice.public, "sst2.dpk.sig: no such signature", tmp_path)


def test_another_diffs_signature_is_refused(alice: Key, use, tmp_path: Path) -> None:
    refused(use, RequiredSignature(alice.public, tmp_path / "mnli.dpk.sig"), "not a signature of", tmp_path)


def test_two_diffs_of_one_signer_cannot_be_exchanged(alice: Key, use, tmp_path: Path) -> None:
    for ending in ("", ".sig"):
        os.replace(tmp_path / f"mnli.dpk{ending}", tmp_path / f"sst2.dpk{ending}")
    refused(use, alice.public, "not a signature of .*under the name 'sst2.dpk'", tmp_path)
    use(RequiredSignature(alice.public, name="mnli.dpk"))  # who asks for it by name gets it


def test_a_renamed_diff_is_used_where_its_signature_lets_it(alice: Key, use, tmp_path: Path) -> None:
    for bound, good in (("other.dpk", False), ("", True)):
        diffpack.sign(tmp_path / "sst2.dpk", alice.private, tmp_path / "sst2.dpk.sig", name=bound, force=True)
        if good:
            use(alice.public)
        else:
            refused(use, alice.public, "not a signature of", tmp_path)


def test_changed_content_whose_digests_are_made_right_again_is_refused(alice: Key, use, tmp_path: Path) -> None:
    diff = tmp_path / "sst2.dpk"
    chunks, manifest = parted(diff.read_bytes())
    diff.write_bytes(joined(chunks, manifest))  # the same content, stored otherwise: another file
    diffpack.verify(diff, BASE)
    refused(use, alice.public, "not a signature of", tmp_path)


def test_a_changed_byte_of_the_diff_is_found(alice: Key, use, tmp_path: Path) -> None:
    diff = tmp_path / "sst2.dpk"
    whole = diff.read_bytes()
    for at in range(len(whole)):
        diff.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(diffpack.DiffpackError) as error:
            use(alice.public)
        assert error.value.exit_code in (11, 12, 13)
        assert not (tmp_path / "out.npz").exists()


def test_a_changed_bit_of_the_signature_is_refused(alice: Key, tmp_path: Path) -> None:
    """Every bit of what stands in the armour, and each of its letters."""
    path = tmp_path / "sst2.dpk.sig"
    armoured = path.read_bytes()
    inside = base64.b64decode(b"".join(armoured.splitlines()[1:-1]))
    head, tail = armoured.splitlines()[0], armoured.splitlines()[-1]
    tried = 0
    with diffpack.open(tmp_path / "sst2.dpk") as diff:
        for bit in range(len(inside) * 8):
            changed = bytearray(inside)
            changed[bit // 8] ^= 1 << bit % 8
            data = b"\n".join((head, base64.b64encode(changed), tail))
            with pytest.raises(SignatureError):
                diffpack.check_signature(diff, alice.public, data)
            tried += 1
        for at in range(len(armoured) - 1):
            data = armoured[:at] + b"~" + armoured[at + 1 :]
            with pytest.raises(SignatureError):
                diffpack.check_signature(diff, alice.public, data)
        for end in range(len(armoured) - len("-\n")):
            with pytest.raises(SignatureError):
                diffpack.check_signature(diff, alice.public, armoured[:end])
    assert tried == len(inside) * 8


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"untrusted comment: minisign\n", b"\x00" * 99, b"-----BEGIN SSH SIGNATURE-----\n" * 9]
)
def test_what_is_no_signature_is_refused(alice: Key, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SignatureError, match="not a signature as ssh-keygen writes it"):
        diffpack.check_signature(tmp_path / "sst2.dpk", alice.public, data)


def test_a_signature_whose_key_is_exchanged_is_refused(alice: Key, tmp_path: Path) -> None:
    made = Signature.open(tmp_path / "sst2.dpk.sig")
    bob = diffpack.sign(tmp_path / "sst2.dpk", make_key(tmp_path, "bob").private)
    for forged in (Signature(made.key, bob.value), Signature(bob.key, made.value), Signature(made.key, bytes(64))):
        with pytest.raises(SignatureError, match="not a signature of"):
            diffpack.check_signature(tmp_path / "sst2.dpk", [alice.public, tmp_path / "bob.pub"], forged)


def test_a_weak_key_lets_nobody_in(alice: Key, tmp_path: Path) -> None:
    """Points of small order have signatures that fit anything; a list that has one as its signer asked for it."""
    weak = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"\x01" + bytes(31)
    for value in (bytes(64), b"\x01" + bytes(63)):
        with pytest.raises(SignatureError):
            diffpack.check_signature(tmp_path / "sst2.dpk", alice.public, Signature(weak, value))


def test_signatures_are_of_one_purpose() -> None:
    assert NAMESPACE == "diffpack"
    assert b"diffpack signature v1\nblake3 " in (FROZEN / "message.txt").read_bytes()


def test_a_signature_that_is_a_folder_or_endless_is_no_file(alice: Key, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(diffpack.DiffpackError):
            diffpack.check_signature(tmp_path / "sst2.dpk", alice.public, path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="over 1,048,576 bytes"):
        diffpack.check_signature(tmp_path / "sst2.dpk", alice.public, tmp_path / "large")


def test_a_diff_in_memory_has_no_signature_beside_it(alice: Key, tmp_path: Path) -> None:
    data = (tmp_path / "sst2.dpk").read_bytes()
    with pytest.raises(UsageError, match="is no file"):
        diffpack.check_signature(data, alice.public)
    with pytest.raises(SignatureError):  # signed under a name, and this has none
        diffpack.check_signature(data, alice.public, tmp_path / "sst2.dpk.sig")
    who = diffpack.check_signature(data, alice.public, tmp_path / "sst2.dpk.sig", name="sst2.dpk")
    assert who.name == "sst2.dpk"


def test_a_file_exchanged_or_overwritten_after_the_check_is_not_used(alice: Key, tmp_path: Path, monkeypatch) -> None:
    """What was checked is what is used, though another file has the name now, or its bytes are others."""
    from diffpack.result import apply as home

    checked, path = home.signed_as_asked, tmp_path / "sst2.dpk"
    signed, other = path.read_bytes(), (tmp_path / "mnli.dpk").read_bytes()

    def exchanged(*arguments):
        who = checked(*arguments)
        (tmp_path / "new").write_bytes(other)
        os.replace(tmp_path / "new", path)
        return who

    def overwritten(*arguments):
        who = checked(*arguments)
        path.write_bytes(other)  # in place: the opened file has these bytes now
        return who

    expected = diffpack.load(BASE, path)
    monkeypatch.setattr(home, "signed_as_asked", exchanged)
    given = diffpack.load(BASE, path, require_signature=alice.public)
    assert all((given[name] == expected[name]).all() for name in expected)
    path.write_bytes(signed)
    monkeypatch.setattr(home, "signed_as_asked", overwritten)
    with pytest.raises(CorruptFileError):
        diffpack.load(BASE, path, require_signature=alice.public)
    path.write_bytes(signed)
    with pytest.raises(diffpack.DiffpackError):
        diffpack.apply(BASE, path, tmp_path / "out.npz", require_signature=alice.public)
    assert not (tmp_path / "out.npz").exists()

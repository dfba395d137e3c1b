"""Signatures, lists of signers and keys with anything in them: read, or refused by an error of ours, and soon."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffpack
from diffpack.errors import DiffpackError, SignatureError
from diffpack.signing import Signature
from diffpack.signing.keys import private_key
from diffpack.signing.signers import read_signers
from diffpack.signing.wire import packed, unpacked
from tests.tools.signed import FROZEN, FROZEN_DIFF

pytest.importorskip("cryptography")
pytest.importorskip("bcrypt")
SIGNATURE = (FROZEN / "sha512.sig").read_bytes()
LIST = b'"a@b.org,c@d.org" namespaces="diffpack,x*",valid-after="20250101Z" ' + (FROZEN / "plain.pub").read_bytes()
KEY = (FROZEN / "plain").read_bytes()
SOON = 1.0  # seconds; all of this takes milliseconds

changes = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 20), st.binary(max_size=12)), min_size=1, max_size=4)


def changed(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in edits:
        data = data[:at] + new + data[at + length :]
    return data


@given(st.one_of(st.binary(), changes.map(lambda edits: changed(SIGNATURE, edits))))
def test_a_damaged_signature_is_refused_or_the_same(data: bytes) -> None:
    try:
        signature = Signature.from_bytes(data)
        diffpack.check_signature(FROZEN_DIFF, FROZEN / "plain.pub", signature)
    except SignatureError:
        return
    assert signature == Signature.from_bytes(SIGNATURE)


@given(st.one_of(st.binary(), changes.map(lambda edits: changed(LIST, edits))))
def test_a_damaged_list_is_read_or_refused(data: bytes) -> None:
    try:
        signers = read_signers(data)
    except DiffpackError:
        return
    assert all(len(signer.key) == len(packed(b"ssh-ed25519", bytes(32))) for signer in signers)


@given(st.one_of(st.binary(), changes.map(lambda edits: changed(KEY, edits))))
def test_a_damaged_key_is_read_or_refused(data: bytes) -> None:
    try:
        private_key(data, "a passphrase")
    except DiffpackError:
        return


@given(st.lists(st.binary(max_size=20), max_size=5), st.binary(max_size=3))
def test_strings_come_back_and_nothing_else_does(strings: list[bytes], more: bytes) -> None:
    data = packed(*strings)
    assert unpacked(data, len(strings)) == strings
    for wrong in (data + more + b"x", data[:-1]):
        if wrong != data:
            with pytest.raises(ValueError, match=r"ends too early|follows its end"):
                unpacked(wrong, len(strings))


@pytest.mark.parametrize(
    "line",
    [
        b'a "' + b'\\"' * 200_000,
        b"a x=" + b'"\\"' * 200_000,
        b"a " + b"x," * 300_000,
        b"," * 900_000,
        b'a namespaces="' + b"*" * 50_000 + b'x" ' + (FROZEN / "plain.pub").read_bytes(),
        b"a ssh-ed25519 " + b"A" * 900_000,
        b"ssh-" * 200_000,
    ],
    ids=range(7),
)
def test_no_list_takes_long(line: bytes) -> None:
    began = time.process_time()
    try:
        diffpack.check_signature(FROZEN_DIFF, line, FROZEN / "sha512.sig")
    except DiffpackError as error:
        assert len(str(error)) < 500  # noqa: PT017 - whichever it is
    assert time.process_time() - began < SOON


@pytest.mark.parametrize("data", [b"A" * 900_000, b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * 900_000, b"\n" * 900_000])
def test_no_signature_takes_long(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(SignatureError):
        Signature.from_bytes(data)
    assert time.process_time() - began < SOON

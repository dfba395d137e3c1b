"""`diffpack sign`, and options that ask for a signature: standard input and output, passphrases, what excludes what."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest

from diffpack_cli import sign as verb
from tests.tools.command_line import fails, ok, run
from tests.tools.signed import BASE, FROZEN, PASSPHRASE, make_diff

pytest.importorskip("cryptography")
pytest.importorskip("bcrypt")
PLAIN, LOCKED = str(FROZEN / "plain"), str(FROZEN / "locked")
PUBLIC = str(FROZEN / "plain.pub")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(verb.PASSPHRASE, raising=False)
    make_diff(tmp_path / "d.dpk")
    np.savez("base.npz", **BASE)
    return tmp_path


def test_a_signature_goes_to_standard_output(work: Path) -> None:
    text = ok("sign", "d.dpk", "--key", PLAIN, "-o", "-")
    ok("sign", "d.dpk", "--key", PLAIN, "-q")
    assert (work / "d.dpk.sig").read_text() == text


def test_a_diff_comes_from_standard_input(work: Path) -> None:
    data = (work / "d.dpk").read_bytes()
    sign = ("sign", "-", "--key", PLAIN, "-o", "s")
    fails(2, ".*no file's name to bind", *sign, stdin=data)
    fails(2, ".*no place for its signature", *sign[:-2], "--any-name", stdin=data)
    ok(*sign, "--signed-as", "d.dpk", stdin=data)
    ask = ("verify", "-", "--key", PUBLIC)
    fails(2, ".*--signature FILE names it", *ask, stdin=data)
    fails(13, ".*not a signature of standard input", *ask, "--signature", "s", stdin=data)
    assert "as d.dpk" in ok(*ask, "--signature", "s", "--signed-as", "d.dpk", stdin=data)
    apply = ("apply", "--base", "base.npz", "-", "-o", "out.npz", "--require-signature", PUBLIC, "--signature", "s")
    fails(13, ".*not a signature of standard input", *apply, stdin=data)
    assert not (work / "out.npz").exists()
    ok(*apply, "--signed-as", "d.dpk", stdin=data)


def test_a_passphrase_comes_from_the_environment_or_a_terminal(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = ("sign", "d.dpk", "--key", LOCKED)
    assert verb.PASSPHRASE in fails(2, ".*no terminal", *sign)
    monkeypatch.setenv(verb.PASSPHRASE, "wrong")
    fails(2, ".*the passphrase does not open it", *sign)
    assert not (work / "d.dpk.sig").exists()
    monkeypatch.setenv(verb.PASSPHRASE, PASSPHRASE)
    first = ok(*sign, "--json")
    monkeypatch.delenv(verb.PASSPHRASE)
    monkeypatch.setattr(verb, "_has_terminal", lambda: True)
    monkeypatch.setattr(
        click, "prompt", lambda text, **how: PASSPHRASE if how == {"hide_input": True, "err": True} else ""
    )
    assert ok(*sign, "--json", "--force") == first


def test_each_of_several_keys_is_enough() -> None:
    ok("sign", "d.dpk", "--key", PLAIN, "--any-name")
    told = ok("verify", "d.dpk", "--key", str(FROZEN / "locked.pub"), "--key", PUBLIC, "--json")
    assert json.loads(told)["signed_as"] == ""
    fails(13, ".*no key whose signature counts", "verify", "d.dpk", "--key", str(FROZEN / "locked.pub"))


def test_without_being_asked_for_no_signature_is_looked_at(work: Path) -> None:
    (work / "d.dpk.sig").write_text("nonsense")
    assert "signed" not in ok("verify", "d.dpk")
    fails(13, ".*not a signature as ssh-keygen writes it", "verify", "d.dpk", "--key", PUBLIC)
    for option in (("--signature", "d.dpk.sig"), ("--signed-as", "x")):
        fails(2, ".*whose signature counts", "verify", "d.dpk", *option)
        fails(2, ".*whose signature counts", "apply", "--base", "base.npz", "d.dpk", "-o", "o.npz", *option)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--key", PLAIN, "--any-name", "--signed-as", "x"),
        ("--key", PLAIN, "--signed-as", ""),
        ("--key", PLAIN, "-o", "-", "--json"),
        ("--key", PLAIN, "--message"),
        ("--message", "--json"),
        ("--key", PLAIN, "-o", "d.dpk", "--force"),
    ],
)
def test_options_that_do_not_fit_are_refused(work: Path, options: tuple[str, ...]) -> None:
    before = (work / "d.dpk").read_bytes()
    fails(2, "", "sign", "d.dpk", *options)
    assert (work / "d.dpk").read_bytes() == before


def test_the_message_is_printed_to_the_byte() -> None:
    assert run("sign", "d.dpk", "--message", "--signed-as", "mé.dpk").stdout_bytes.endswith("\nname mé.dpk\n".encode())
    assert run("sign", "d.dpk", "--message", "--any-name").stdout_bytes.count(b"\n") == 2

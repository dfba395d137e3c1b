"""Names of files in a diff: what each system can have, no other file anywhere, all of it seen; both readers agree."""

from __future__ import annotations

import re

import pytest

from diffpack.format.file_names import alike, clash, is_plain_file_name, is_plain_path
from spec.manifest import is_plain
from tests.tools import ROOT

SURROGATES = range(0xD800, 0xE000)  # no text has them


def test_the_characters_no_file_name_has_are_those_of_the_specification() -> None:
    spec = (ROOT / "spec" / "format.md").read_text()
    table = spec.split("| characters that no file name has |")[1].split("- [L2]")[0]
    named = {ord(letter) for letter in '/\\<>:"|?*'}
    for first, last in re.findall(r"U\+([0-9A-F]+)(?: \.\. U\+([0-9A-F]+))?", table):
        named.update(range(int(first, 16), int(last or first, 16) + 1))
    every = [code for code in range(0x110000) if code not in SURROGATES]
    assert {code for code in every if not is_plain_file_name(f"a{chr(code)}b")} == named - {*SURROGATES}
    assert {code for code in every if not is_plain(f"a{chr(code)}b")} == named - {*SURROGATES}


DEVICES = ["CON", "prn", "Aux", "NUL", "conin$", "CONOUT$", *(f"{port}{at}" for port in ("COM", "lpt") for at in "19²")]


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_is_no_file_whatever_stands_behind_it(device: str) -> None:
    for name in (device, f"{device}.json", f"{device} .txt", f"{device}.tar.gz", device.swapcase()):
        assert not is_plain_file_name(name)
        assert not is_plain(name)
        assert not is_plain_path(f"a/{name}")
        assert not is_plain_path(f"{name}/a.json")
    for name in (f"{device}_.json", f"a{device}", f"a.{device}", f"{device}x.txt"):
        assert is_plain_file_name(name)
        assert is_plain(name)


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.model.v3", "model-00001-of-00002.safetensors", "a (1).txt", "日本.txt", "café.json", "é",
     " a", "com0", "com10.json", "ß.txt", "x" * 255],
)  # fmt: skip
def test_ordinary_names_are_plain(name: str) -> None:
    assert is_plain_file_name(name)
    assert is_plain(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a.", "a ", " ", "x" * 256, "\ud800"])
def test_names_that_are_hidden_or_lose_their_end_are_not(name: str) -> None:
    assert not is_plain_file_name(name)
    assert name == "\ud800" or not is_plain(name)  # no manifest has that


@pytest.mark.parametrize(
    ("one", "two"),
    [("A.json", "a.json"), ("\xe9", "e\u0301"), ("\xc9", "e\u0301"), ("\u212b", "\xe5"), ("ß", "SS"), ("ﬁ", "FI"),
     ("a\u0323\u0302", "a\u0302\u0323"), ("\u1f80", "\u1f00\u0345"), ("a", "A/b"), ("e\u0301/a", "\xc9")],
)  # fmt: skip
def test_names_that_some_system_takes_for_one_clash(one: str, two: str) -> None:
    assert clash([one, two])
    assert clash([two, "other", one])
    assert clash(["same", "same"])


def test_others_do_not() -> None:
    assert not clash(["a/b", "a/c", "A.json", "b", "e", "\xe9", "cafe.json", "café.json", "²", "2"])
    assert alike("CAFÉ/Ä.json") == alike("cafe\u0301/a\u0308.JSON")

"""The recorded terminal shows what the commands print today, and fetches nothing."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.page_blocks import DOCS, same


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_terminal", DOCS / "make_terminal.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_terminal = _script()


def text(picture: str) -> str:
    """The lines of a picture, one space between words."""
    lines: dict[str, list[str]] = {}
    for node in ET.fromstring(picture).iter():  # noqa: S314 - ours
        if node.tag.endswith("}text"):
            lines.setdefault(node.attrib["y"], []).extend("".join(node.itertext()).split())
    return "\n".join(" ".join(words) for words in lines.values())


@pytest.mark.real
def test_the_picture_shows_what_the_commands_print(real_pair: tuple[Path, Path]):
    rendered = make_terminal.render(make_terminal.record(real_pair[0].parent.parent))
    assert same(text(make_terminal.PICTURE.read_text()), text(rendered)), "run `make terminal`"


def test_the_picture_fetches_nothing_and_shows_every_command():
    picture = make_terminal.PICTURE.read_text()
    assert "@font-face" not in picture
    assert set(re.findall(r"url\((.)", picture)) == {"#"}
    assert set(re.findall(r"https?://[^\"]*", picture)) == {"http://www.w3.org/2000/svg"}
    for command in make_terminal.COMMANDS:
        assert command in text(picture)


def test_the_same_text_gives_the_same_picture():
    recorded = [("one", "\x1b[1mbold\x1b[0m\n"), ("two", "a" * 200)]
    assert make_terminal.render(iter(recorded)) == make_terminal.render(iter(recorded))
    lines = text(make_terminal.render(iter(recorded))).splitlines()
    assert [line for line in lines if line] == [
        "diffpack", "$ one", "bold", "$ two", "a" * 92, "a" * 92, "a" * 16,
    ]  # fmt: skip

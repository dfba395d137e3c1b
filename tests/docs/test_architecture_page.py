"""The page of the architecture names files that are there, and in them what it says they hold."""

from __future__ import annotations

import re

import pytest

from tests.tools import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
HOUSE = PAGE.partition("## The house")[2].partition("Arrows run")[0]
PATHS = sorted(set(re.findall(r"`([\w.]+/[\w./*]*)`", PAGE)))
HOLDINGS = re.findall(r"((?:`\w+`(?:, | and )?)+) in `([\w./]+\.py)`", PAGE)
ROOMS = [path for path in (ROOT / "diffpack").iterdir() if (path / "__init__.py").exists()]


def files(path: str) -> list[str]:
    found = [*ROOT.glob(path), *(ROOT / "diffpack").glob(path)]
    return [str(item) for item in found]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_on_the_page_is_there(path):
    if not re.search(r"NAME|MAJOR|fixtures/v", path):
        assert files(path), path


@pytest.mark.parametrize(("said", "path"), HOLDINGS)
def test_a_file_holds_what_the_page_says(said, path):
    (where,) = files(path)
    with open(where) as file:
        source = file.read()
    for name in re.findall(r"\w+", said.replace(" and ", " ")):
        assert re.search(rf"^(def |class )?{name}\b", source, re.MULTILINE), (name, path)


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_every_room_is_on_the_page(room):
    assert f"\n      {room.name}/ " in HOUSE


def test_the_page_has_paths_and_holdings():
    assert len(PATHS) > 50
    assert len(HOLDINGS) > 8

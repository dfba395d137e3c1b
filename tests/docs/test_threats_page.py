"""Every promise of the page on threats names what tests it, and that is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.tools import ROOT
from tests.tools.signed import FROZEN

PAGE = (ROOT / "docs" / "threats.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## What is promised")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ")
][1:]
NAMED = [(row[0], test) for row in ROWS for test in re.findall(r"`([^`]+)`", row[2])]


def test_every_promise_says_how_it_is_kept_and_what_tests_it():
    assert len(ROWS) > 10
    for promise, how, _ in ROWS:
        assert how
        assert promise in {name for name, _ in NAMED}


@pytest.mark.parametrize(("promise", "test"), NAMED)
def test_what_tests_a_promise_is_there(promise: str, test: str):
    if test.startswith("make "):
        assert re.search(rf"^{test.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in functions or (not name and any(item.startswith("test_") for item in functions))


def test_links_lead_somewhere():
    for page in ("SECURITY.md", "docs/threats.md"):
        text = (ROOT / page).read_text()
        links = re.findall(r"\]\(([^)#]+)\)", text)
        assert links
        for link in links:
            assert ((ROOT / page).parent / link).exists(), link


def test_the_message_it_shows_is_one_that_is_signed():
    lines = (FROZEN / "message.txt").read_text().splitlines()
    assert re.findall(r"^\| .*? \| `(.*)` \|$", PAGE.split("## What is signed")[1], re.MULTILINE)[:3] == lines

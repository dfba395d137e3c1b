"""What people may import beside `diffpack` itself is listed in docs/api.md, and is there."""

from __future__ import annotations

import importlib
import re

from tests.tools import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text()
ROWS = re.findall(r"^\| `(diffpack\.[\w.]+)` \| (.*) \|$", PAGE.split("## Public paths")[1], re.MULTILINE)


def test_every_listed_path_has_what_it_is_said_to_have():
    assert {path for path, _ in ROWS} == {
        "diffpack.errors",
        "diffpack.algebra.merge",
        "diffpack.bridges",
        "diffpack.live",
        "diffpack.report",
        "diffpack.signing",
        "diffpack.train",
    }
    for path, text in ROWS:
        module = importlib.import_module(path)
        for name in re.findall(r"`(\w+)`", text):
            assert hasattr(module, name) or name == "convert", (path, name)


def test_a_package_that_says_what_is_public_is_listed_whole():
    for path, text in ROWS:
        public = set(getattr(importlib.import_module(path), "__all__", ()))
        named = set(re.findall(r"`(\w+)`", text)) | {"Converted", "convert"}
        assert public <= named, path


def test_the_calls_of_the_library_are_in_the_table():
    import diffpack

    calls = {name for name in diffpack.__all__ if name[0].islower()}
    assert calls <= set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)) | {"__version__"}

"""Every package is in the wheel, and every file is about one thing."""

from __future__ import annotations

import re
import tomllib

from tests.tools import ROOT


def test_every_package_is_in_the_wheel():
    listed = set(re.findall(r'^    "(diffpack[\w.]*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "diffpack").rglob("__init__.py")}
    assert listed == found | {"diffpack_cli"}


def test_every_file_that_is_no_module_is_in_the_wheel():
    library = ROOT / "diffpack"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["diffpack"]
    shipped = {path for pattern in patterns for path in library.glob(pattern)}
    found = {path for path in library.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in found if path.suffix not in (".py", ".c", ".so", ".pyd")} == shipped


def test_files_stay_about_one_thing():
    for folder in ("diffpack", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
    for path in (ROOT / "tests").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
    assert len((ROOT / "spec" / "reader.py").read_text().splitlines()) < 250

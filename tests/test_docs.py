from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_help_of_completion_shows_a_line_for_each_shell():
    shown = subprocess.run(
        [sys.executable, "-m", "diffpack_cli", "completion", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert sum(line.strip().startswith(("bash:", "zsh:", "fish:")) for line in shown.splitlines()) == 3
    assert "\\b" not in shown + (ROOT / "docs" / "cli.md").read_text()


def test_the_command_line_page_is_that_of_the_commands():
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text() == module.render()


def test_every_package_is_in_the_wheel():
    listed = set(re.findall(r'^    "(diffpack[\w.]*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "diffpack").rglob("__init__.py")}
    assert listed == found | {"diffpack_cli"}


def test_files_stay_about_one_thing():
    for folder in ("diffpack", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
    assert len((ROOT / "spec" / "reader.py").read_text().splitlines()) < 250

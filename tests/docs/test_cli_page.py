"""The page of the command line is that of the commands."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from tests.tools import ROOT


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

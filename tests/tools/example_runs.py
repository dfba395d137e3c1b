"""The scripts in examples/, run as a user runs them, and what their docstrings show."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

from tests.tools import ROOT

FOLDER = ROOT / "examples"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT)}
"""One thread: small models gain nothing by more, and other tests run beside."""
SECONDS = 120
"""After which a run hangs."""


def start(name: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(name: str, *arguments: object) -> str:
    """What an example prints; it must succeed, and complain of nothing."""
    with start(name, *arguments) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, ""), err
    return out


def documented(name: str) -> str:
    return ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""


def form(text: str) -> list[str]:
    """Lines without their numbers, fingerprints and spaces at the ends."""
    text = re.sub(r"\b[0-9a-f]{8}\.\.\.", "FINGERPRINT", text)
    text = re.sub(r"-?\d[\d,]*(\.\d+)?", "N", text)
    return [re.sub(" +", " ", line.strip()) for line in text.strip().splitlines()]

"""reminis' delta pack. Models become SQLite databases first, as its command line has it; that is part of the times."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def run(*arguments: str | Path) -> None:
    command = [sys.executable, "-c", "from reminis.cli import main; main()", *map(str, arguments), "-q"]
    subprocess.run(command, check=True)


def encode(base: Path, tuned: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "base.db", Path(name) / "tuned.db"
        run("convert", base, "-o", before)
        run("convert", tuned, "-o", after)
        run("diff", before, after, "-o", out)


def decode(base: Path, out: Path, result: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "base.db", Path(name) / "tuned.db"
        run("convert", base, "-o", before)
        run("apply", before, out, "-o", after)
        run("export", after, "-o", result)

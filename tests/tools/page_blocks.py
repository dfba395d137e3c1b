"""The pages of docs/, their blocks of code, and how these are run: as a reader would, in a folder that has the files.

`sh` and `python` blocks are run in the order they stand in. `text` behind one of them is what it prints. `console` is
what cannot run here, commands (behind `$ `) with what they print: few, and the page says what they need.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools import ROOT

DOCS = ROOT / "docs"
RUN = ("sh", "python")
SHOWN = ("text", "console", "yaml")
"""What languages of blocks there are: some are run, some are shown."""
COMMAND = re.compile(r"^(\$ |(diffpack|make|pip|python|curl) [\w-])")
"""What a line looks like that a reader would type."""
OFF_BY = 0.02
"""How far, relative to it, a number may be from the one on the page: compressors and machines differ a little."""
SECONDS = 120
"""After which a command hangs."""
_FENCED = re.compile(r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)")
"""A number by itself, which the digits of a fingerprint are not."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what is in it, the line of its fence, the heading it stands under."""

    language: str
    text: str
    line: int
    section: str


def pages() -> dict[str, Path]:
    """The pages of docs/ by their paths there."""
    return {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page's text."""
    found = []
    for match in _FENCED.finditer(page):
        before = page[: match.start()]
        headings = re.findall(r"^## (.*)$", before, re.MULTILINE)
        place = before.count("\n") + 1
        found.append(Block(match["language"], match["text"], place, headings[-1] if headings else ""))
    return found


def unfenced(page: str) -> str:
    """The page's text without its fenced blocks."""
    return _FENCED.sub("", page)


def environment(folder: Path) -> dict[str, str]:
    """What commands see: this checkout's `diffpack`, and a `make` that says what it would do."""
    python = shlex.quote(sys.executable)
    programs = {
        "diffpack": f'exec {python} -m diffpack "$@"',
        "python": f'exec {python} "$@"',
        "make": f'exec {shutil.which("make")} -n -C {shlex.quote(str(ROOT))} "$@"',
    }
    folder.mkdir()
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def run_sh(block: Block, folder: Path, variables: dict[str, str]) -> str:
    """Run the commands of a block, up to the first that fails; give what they print, errors and notes too."""
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", block.text],
        cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, f"line {block.line}: {block.text}\n{done.stdout}"
    return done.stdout


def run_python(block: Block, scope: dict[str, Any]) -> str:
    """Run a block of Python where `scope` has the names that the page speaks of; give what it prints."""
    code = compile("\n" * block.line + block.text, "<the page>", "exec")  # lines are the page's
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, scope)  # noqa: S102 - the page's own code
    return printed.getvalue()


def same(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed: `...` is anything, numbers may be a little off."""
    parts = [part for part in re.split(rf"(\.\.\.|{_NUMBER.pattern})", shown.strip()) if part]
    numbers = [part for part in parts if _NUMBER.fullmatch(part)]
    pattern = "".join(
        ".*?" if part == "..." else f"({_NUMBER.pattern})" if _NUMBER.fullmatch(part) else re.escape(part)
        for part in parts
    )
    match = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    return match is not None and all(map(_near, numbers, match.groups()))


def run(page: str, folder: Path, variables: dict[str, str], scopes: Iterator[dict[str, Any]]) -> int:
    """Run all blocks of a page's text, each section of Python with the next scope; give how many were run."""
    count, printed, section, scope = 0, None, None, dict[str, Any]()
    for block in blocks(page):
        if block.language == "sh":
            printed = run_sh(block, folder, variables)
        elif block.language == "python":
            if section != block.section:
                scope, section = next(scopes), block.section
            printed = run_python(block, scope)
        elif block.language == "text" and printed is not None:
            assert same(block.text, printed), f"line {block.line}: it prints\n{printed}"
            printed = None
        else:
            printed = None
        count += block.language in RUN
    return count


def _near(said: str, found: str) -> bool:
    value = float(said.replace(",", ""))
    return abs(value - float(found.replace(",", ""))) <= OFF_BY * abs(value)

"""xdelta3 of the files, through pyxdelta (which leaves the source window at xdelta's default)."""

from __future__ import annotations

import sys
from pathlib import Path

import pyxdelta


def encode(base: Path, tuned: Path, out: Path) -> None:
    if not pyxdelta.run(infile=str(base), outfile=str(tuned), patchfile=str(out)):
        sys.exit("xdelta gave no patch")


def decode(base: Path, out: Path, result: Path) -> None:
    if not pyxdelta.decode(infile=str(base), patchfile=str(out), outfile=str(result)):
        sys.exit("xdelta could not decode its patch")

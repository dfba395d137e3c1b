"""Inputs of several files: one run of bytes that says where each begins."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.changes import BYTES, Change

_END = b"\n"


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files by their names, as one input."""
    return json.dumps({name: len(data) for name, data in files.items()}).encode() + _END + b"".join(files.values())


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of an input. Raises `ValueError` for what `pack` did not write (atheris may invent such)."""
    head, _, body = data.partition(_END)
    sizes = json.loads(head)
    if not isinstance(sizes, dict) or not all(type(size) is int and size >= 0 for size in sizes.values()):
        raise ValueError("no pack")
    files = {}
    for name, size in sizes.items():
        if not name or Path(name).name != name or "\0" in name:
            raise ValueError("no pack")
        files[name], body = body[:size], body[size:]
    return files


def pack_folder(folder: Path) -> bytes:
    """The files of a folder."""
    return pack({path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()})


def change_one(changes: Mapping[str, Change], otherwise: Change = BYTES) -> Change:
    """Change one file of a pack, by the change that its ending has."""

    def change(data: bytes, rng: random.Random) -> bytes:
        files = unpack(data)
        name = rng.choice(sorted(files))
        by = next((change for ending, change in changes.items() if name.endswith(ending)), otherwise)
        files[name] = by(files[name], rng)
        return pack(files)

    return change


def lay_out(data: bytes, folder: Path) -> None:
    """Write the files of a pack into a folder, which is emptied first."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in unpack(data).items():
        (folder / name).write_bytes(content)

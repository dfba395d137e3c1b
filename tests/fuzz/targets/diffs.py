"""Diffs: opened, counted, verified and applied by the library; and by it and the specification's reader alike."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from blake3 import blake3

import diffpack
from diffpack.errors import DiffpackError
from spec import reader
from spec.layout import load_safetensors
from tests.fuzz.changes import BYTES
from tests.fuzz.diffs import remanifest, renumber, without_codecs
from tests.fuzz.packs import pack, unpack
from tests.fuzz.target import Target, WrongResultError, scratch
from tests.tools import ROOT

_MOST_SEED = 60_000


@cache
def seeds() -> list[bytes]:
    """Every valid fixture, with its base where it has one, as it is and without codecs."""
    found = []
    for folder in sorted((ROOT / "fixtures").glob("v*")):
        for case in json.loads((folder / "cases.json").read_text())["cases"]:
            path = folder / case["file"]
            if case["expect"] == "valid" and path.stat().st_size <= _MOST_SEED:
                base = (folder / case["base"]).read_bytes() if "base" in case else b""
                data = path.read_bytes()
                found += [pack({"base": base, "diff": one}) for one in (data, without_codecs(data))]
    return found


def change(data: bytes, rng: random.Random) -> bytes:
    """Change the diff, most often so that its digests fit; the base stays."""
    files = unpack(data)
    try:
        by = rng.choice([remanifest, remanifest, remanifest, renumber, renumber, BYTES])
        files["diff"] = by(files["diff"], rng)
    except Exception:  # it was damaged before
        files["diff"] = BYTES(files["diff"], rng)
    return pack(files)


def base_of(data: bytes) -> Path | None:
    """The base of an input as a file; the same for the same bytes."""
    if not data:
        return None
    path = scratch() / f"{blake3(data).hexdigest()}.safetensors"
    if not path.exists():
        path.write_bytes(data)
    return path


def parts(data: bytes) -> dict[str, bytes]:
    """Base and diff of an input; both empty for what is no pack (atheris may invent such)."""
    try:
        return {"base": b"", "diff": b"", **unpack(data)}
    except ValueError:
        return {"base": b"", "diff": b""}


def read(data: bytes) -> None:
    """All that the library does with a diff."""
    files = parts(data)
    base = base_of(files["base"])
    with diffpack.open(files["diff"]) as diff:
        diffpack.stats(diff)
        diffpack.verify(diff, threads=1)
        diffpack.load(base or {}, diff, threads=1)


def both(data: bytes) -> None:
    """The library and the specification's reader: both refuse, or both come to the same tensors."""
    files = parts(data)
    base = base_of(files["base"])
    ours: object
    try:
        with diffpack.open(files["diff"]) as diff:
            diffpack.verify(diff, threads=1)
            ours = {name: array.tobytes() for name, array in diffpack.load(base or {}, diff, threads=1).items()}
    except DiffpackError as error:
        ours = error
    theirs: object
    try:
        tensors = load_safetensors(str(base))[1] if base else {}
        theirs = {name: tensor.data for name, tensor in reader.apply(reader.read(files["diff"]), tensors).items()}
    except reader.Invalid as error:
        theirs = error
    refused = isinstance(ours, DiffpackError), isinstance(theirs, reader.Invalid)
    if any(refused):
        if not all(refused):
            raise WrongResultError(f"diffpack {_told(ours)}, the specification's reader {_told(theirs)}")
        assert isinstance(ours, DiffpackError)
        raise ours
    if ours != theirs:
        raise WrongResultError("the library and the specification's reader come to other tensors")


def _told(outcome: object) -> str:
    return f"refuses it ({outcome})" if isinstance(outcome, Exception) else "reads it"


TARGETS = [Target("diff", seeds, change, read), Target("differential", seeds, change, both)]

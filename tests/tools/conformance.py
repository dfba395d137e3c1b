"""The conformance cases of every version of the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffpack.checkpoints import open_checkpoint
from tests.tools import ROOT
from tests.tools.craft import Raw

FOLDERS = sorted((ROOT / "fixtures").glob("v*"))
CASES: list[dict[str, Any]] = [
    {"folder": folder, **case}
    for folder in FOLDERS
    for case in json.loads((folder / "cases.json").read_text())["cases"]
]


def content(checkpoint: Any) -> dict[str, Raw]:
    """Names, dtypes, shapes and bytes of a checkpoint: a file, a folder, or arrays by name."""
    found = open_checkpoint(checkpoint)
    return {name: (info.dtype.name, info.shape, found.words(name).tobytes()) for name, info in found.tensors.items()}


def base_of(case: dict[str, Any]) -> Path | None:
    """The base that a case is about, if it has one."""
    return case["folder"] / case["base"] if "base" in case else None


def acceptable(case: dict[str, Any]) -> list[str]:
    """The rules that a reader may name."""
    rules: list[str] = case.get("accept", [case["expect"]])
    return rules


def told(case: dict[str, Any]) -> str:
    """A case's name, for the list of tests."""
    return f"{case['folder'].name}/{case['file']}"

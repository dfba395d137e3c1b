"""The second readers of every version of the format, and what each must make of a diff."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import diffpack
from diffpack.diff.diff import Diff
from spec import reader as newest
from tests.tools import ROOT
from tests.tools.conformance import content
from tests.tools.craft import Raw

KEPT = sorted(path.name for path in (ROOT / "spec" / "old").glob("v*"))
OLD: dict[int, Any] = {int(name[3:]): importlib.import_module(f"spec.old.{name}.reader") for name in KEPT}
"""The kept readers by minor version."""
WRITTEN: Counter[str] = Counter()
"""How many files `check` was given in this process, and what the kept readers did with them."""
_MINOR = 10  # where a header has it


def features() -> dict[str, int]:
    """The features of the specification, with the minor version that brought each."""
    text = " ".join((ROOT / "spec" / "format.md").read_text().split())
    listed = re.findall(r"of 1\.(\d+): ([^;.]+)[;.]", text[text.index("Features of 1.0:") :].split("Every codec")[0])
    return {name: int(minor) for minor, names in listed for name in re.findall(r"`(\w+)`", names)}


FEATURES = features()


def bytes_of(diff: Diff | Path | bytes) -> bytes:
    """The file that a diff is."""
    if isinstance(diff, bytes):
        return diff
    return diff.read_bytes() if isinstance(diff, Path) else diff._source.read(0, diff.nbytes)


def minor_of(data: bytes) -> int:
    """The minor version in a file's header."""
    return int.from_bytes(data[_MINOR : _MINOR + 2], "little")


def applied(reader: Any, data: bytes, base: dict[str, Raw]) -> dict[str, Raw]:
    """What one of the readers makes of a file."""
    tensors = {name: reader.Tensor(*raw) for name, raw in base.items()}
    return {name: tuple(tensor) for name, tensor in reader.apply(reader.read(data), tensors).items()}


def answer(reader: Any, data: bytes, base: dict[str, Raw]) -> dict[str, Raw] | set[str]:
    """The result, or the features that the reader names as those it does not know. All else is raised."""
    try:
        return applied(reader, data, base)
    except reader.Unsupported as error:
        assert error.rule == "M3"  # noqa: PT017 - the answer is looked at by the caller
        return set(str(error).removeprefix("[M3] the file requires ").split(", "))


def check(diff: Diff | Path | bytes, base: Any, result: Any) -> int:
    """Library and readers come to the result, or name just what is newer than they. Gives the file's minor version."""
    data, old, new = bytes_of(diff), content(base), content(result)
    required = newest.read(data).manifest["requires"]
    assert minor_of(data) == max((FEATURES[name] for name in required), default=0)
    assert applied(newest, data, old) == new
    assert diffpack.verify(diff, base).result == newest.fingerprint(
        {name: newest.Tensor(*raw) for name, raw in new.items()}
    )
    WRITTEN["files"] += 1
    for minor, reader in OLD.items():
        newer = {name for name in required if FEATURES[name] > minor}
        assert answer(reader, data, old) == (newer or new), f"the reader of 1.{minor}"
        WRITTEN[f"1.{minor} refused" if newer else f"1.{minor} read"] += 1
    return minor_of(data)

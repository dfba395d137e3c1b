"""What a diff's classes are called: the label names in the configuration of the model it makes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from diffpack.checkpoints import Checkpoint
from diffpack.diff.diff import Diff
from diffpack.diff.sidefiles import side_content
from diffpack.tensors.digests import short_digest

CONFIG = "config.json"
_NAMELESS = re.compile(r"LABEL_\d+")  # what transformers calls the labels of a head nobody named


def label_names(diff: Diff, base: Checkpoint | None) -> tuple[str, ...] | None:
    """The names of a diff's labels, in their order; None if it has none, or nobody named them.

    Raises `CorruptFileError`.
    """
    names = _configuration(diff, base).get("id2label")
    if not isinstance(names, Mapping) or not names or not all(str(key).isdecimal() for key in names):
        return None
    ordered = tuple(str(names[key]) for key in sorted(names, key=int))
    return None if all(_NAMELESS.fullmatch(name) for name in ordered) else ordered


def _configuration(diff: Diff, base: Checkpoint | None) -> Mapping[str, Any]:
    """The configuration of a diff's result, from the diff or from the base's folder; {} if neither has it."""
    item = next((item for item in diff.manifest.files if item.name == CONFIG), None)
    if item is None:
        return {}
    if item.stored:
        content = side_content(diff, item)
    else:
        path = None if base is None or base.folder is None else base.folder / CONFIG
        content = path.read_bytes() if path is not None and path.is_file() else b""
        if short_digest(content) != item.digest:
            return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

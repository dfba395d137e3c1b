"""What a diff's classes and new tokens are called: names in the configuration and the tokenizer beside its weights."""

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
    names = _read(diff, base, CONFIG).get("id2label")
    if not isinstance(names, Mapping) or not names or not all(str(key).isdecimal() for key in names):
        return None
    ordered = tuple(str(names[key]) for key in sorted(names, key=int))
    return None if all(_NAMELESS.fullmatch(name) for name in ordered) else ordered


def new_tokens(diff: Diff, base: Checkpoint | None, rows: int) -> dict[int, str]:
    """The tokens of a diff's tokenizer from number `rows` on, as far as its files tell. Raises `CorruptFileError`."""
    tokenizer = _read(diff, base, "tokenizer.json")
    decoder = _read(diff, base, "tokenizer_config.json").get("added_tokens_decoder")
    model = tokenizer.get("model")
    named: list[tuple[Any, Any]] = []
    for words in (model.get("vocab") if isinstance(model, Mapping) else None, _read(diff, base, "added_tokens.json")):
        named += [(number, word) for word, number in words.items()] if isinstance(words, Mapping) else []
    if isinstance(decoder, Mapping):
        named += [(number, item.get("content")) for number, item in decoder.items() if isinstance(item, Mapping)]
    added = tokenizer.get("added_tokens")
    named += [
        (item.get("id"), item.get("content"))
        for item in (added if isinstance(added, list) else [])
        if isinstance(item, Mapping)
    ]
    return {
        int(number): word
        for number, word in named
        if str(number).isdecimal() and int(number) >= rows and isinstance(word, str)
    }


def _read(diff: Diff, base: Checkpoint | None, name: str) -> Mapping[str, Any]:
    """A JSON object beside a diff's result, from the diff or from the base's folder; {} if neither has it."""
    item = next((item for item in diff.manifest.files if item.name == name), None)
    if item is None:
        return {}
    if item.stored:
        content = side_content(diff, item)
    else:
        path = None if base is None or base.folder is None else base.folder / name
        content = path.read_bytes() if path is not None and path.is_file() else b""
        if short_digest(content) != item.digest:
            return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

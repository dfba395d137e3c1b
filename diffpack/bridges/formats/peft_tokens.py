"""Tokens trained beside LoRA (`trainable_token_indices`): rows of an embedding that the adapter replaces."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from diffpack.algebra.sums import Sums
from diffpack.bridges.formats.peft_adapter import Adapter
from diffpack.bridges.formats.peft_changes import AdapterChanges
from diffpack.bridges.formats.peft_keys import adapted
from diffpack.bridges.formats.peft_merge import with_rows
from diffpack.errors import CorruptFileError
from diffpack.support.names import printable

TOKENS = "trainable_tokens"
"""What the names of such tensors have in them."""
_ROWS = ".token_adapter.trainable_tokens_delta"
_SETTING = "trainable_token_indices"


def add_tokens(adapter: Adapter, changes: AdapterChanges, sums: Sums) -> set[str]:
    """Let the rows be replaced; give the names of the adapter's tensors that hold them.

    Raises `CorruptFileError` if the settings do not say which rows.
    """
    taken = {name for name in adapter.keys if name.endswith(_ROWS)}
    for name in sorted(taken):
        rows = _rows(adapter, name.removesuffix(_ROWS))
        target = adapted(name)
        assert target is not None
        changes.add(target, name, partial(with_rows, adapter, name, rows, sums))
    return taken


def _rows(adapter: Adapter, module: str) -> list[int]:
    """Which rows: a list is for the model's embedding of inputs, an object has one for each module's name."""
    setting = adapter.config.get(_SETTING)
    if isinstance(setting, Mapping):
        setting = next((rows for key, rows in setting.items() if module == key or module.endswith(f".{key}")), None)
    rows: list[int] = setting if isinstance(setting, list) else [-1]
    if any(type(row) is not int or row < 0 for row in rows) or len(set(rows)) < len(rows):
        raise CorruptFileError(f"{adapter.path}: {_SETTING} does not say which rows {printable(module)} has, each once")
    return rows

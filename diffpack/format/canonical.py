"""Canonical JSON: one byte string for one value (rule M1)."""

from __future__ import annotations

from typing import Any

import msgspec

from diffpack.errors import CorruptFileError
from diffpack.format.limits import JSON_INTEGER

_ENCODER = msgspec.json.Encoder(order="sorted")
_RULE = "M1"


def encode(value: dict[str, Any]) -> bytes:
    """Write a value made of objects, arrays, strings, integers, booleans and null."""
    return _ENCODER.encode(value)


def decode(data: bytes, where: str) -> dict[str, Any]:
    """Read one canonical JSON object. Raises `CorruptFileError` for anything else."""
    try:
        value = msgspec.json.decode(data)
        if not isinstance(value, dict):
            raise CorruptFileError(f"{where}: the manifest is not an object", _RULE)
        _check_numbers(value, where)
        if encode(value) != data:
            raise CorruptFileError(f"{where}: the manifest is not canonical JSON", _RULE)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise CorruptFileError(f"{where}: the manifest is not JSON: {error}", _RULE) from None
    return value


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _check_numbers(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, where)
    elif isinstance(value, float) or (isinstance(value, int) and not 0 <= value <= JSON_INTEGER):
        raise CorruptFileError(f"{where}: the manifest holds the number {value}", _RULE)

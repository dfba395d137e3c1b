"""Sequences of strings from the user: a single string is one too, of letters, and never meant so."""

from __future__ import annotations

from collections.abc import Iterable

from diffpack.errors import UsageError


def listed_strings(values: Iterable[str], what: str) -> list[str]:
    """List strings that a caller gave; `what` names them in the error, in the plural.

    Raises `UsageError` for a single string (or bytes), and for a value that is none.
    """
    if isinstance(values, str | bytes):
        raise UsageError(f"{what} are a list of strings, not one string: [{values!r}]")
    try:
        listed = list(values)
    except TypeError:
        raise UsageError(f"{what} are a list of strings, not {type(values).__name__}") from None
    for at, value in enumerate(listed):
        if not isinstance(value, str):
            raise UsageError(f"{what} are strings, but number {at} is {value!r}")
    return listed

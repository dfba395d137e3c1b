"""Running out of memory, told as every other error is: by whom, at what, and what to do."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from diffpack.errors import OutOfMemoryError
from diffpack.support.names import listed, printable

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")


def memory_told(verb: Callable[_Arguments, _Made]) -> Callable[_Arguments, _Made]:
    """A verb that raises `OutOfMemoryError`, which names its files, where there is not enough memory."""

    @functools.wraps(verb)
    def told(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Made:
        try:
            return verb(*arguments, **options)
        except MemoryError as error:
            files = [printable(os.fspath(item)) for item in arguments if isinstance(item, str | os.PathLike)]
            what = listed(files) if files else "models in memory"
            cause = f" ({error})" if str(error) else ""
            raise OutOfMemoryError(f"{verb.__name__} of {what}: not enough memory{cause}") from error

    return told

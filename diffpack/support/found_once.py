"""What an object finds out once, when it is first asked for, and keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class found_once(Generic[T]):  # noqa: N801 - a decorator
    """As `functools.cached_property`, which up to Python 3.11 takes a lock each time it finds something.

    For what is asked of tens of thousands of objects: two threads that ask at once may both find it.
    """

    def __init__(self, find: Callable[[Any], T]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, holder: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, holder: object, owner: type[Any]) -> T: ...

    def __get__(self, holder: object | None, owner: type[Any]) -> Self | T:
        if holder is None:
            return self
        found = holder.__dict__[self._name] = self._find(holder)
        return found

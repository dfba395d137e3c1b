"""What a user may say of renamed tensors: prefixes, regular expressions, a function; written as rename rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from diffpack.errors import UsageError
from diffpack.support.names import printable
from diffpack.tensors.name_rules import rules_for
from diffpack.tensors.rename import Rename

Renaming = Iterable[tuple[str | re.Pattern[str], str]] | Mapping[Any, str] | Callable[[str], str]
r"""(old, new) pairs, of which the first that fits a name is taken, or a function from name to name.

An old text is a prefix, and what stands for it is the new text. A compiled pattern is looked for anywhere in the name,
as `re.sub` does, and the new text may speak of its groups: (re.compile(r"layers\.(\d+)\."), r"h.\1."). A mapping is its
pairs.
"""


def checked(renaming: Renaming) -> Renaming:
    """The same, pairs as a tuple. Raises `UsageError` for what is no renaming."""
    if callable(renaming):
        return renaming
    pairs = tuple(renaming.items() if isinstance(renaming, Mapping) else renaming)
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(f"rename takes (old, new) pairs or a function, not {pair!r}")
        old, new = pair
        if not isinstance(new, str) or not isinstance(old, str | re.Pattern):
            raise UsageError(f"rename takes pairs of a prefix or a compiled pattern and a text, not {pair!r}")
        if isinstance(old, re.Pattern):
            _substituted(old, new, "")
    return tuple((old, new) for old, new in pairs)


def only_prefixes(renaming: Renaming) -> bool:
    """Whether the rules are the same whatever names there are."""
    given = checked(renaming)
    return not callable(given) and all(isinstance(old, str) for old, _ in given)


def rename_rules(renaming: Renaming, names: Iterable[str], where: str) -> Rename:
    """The prefix rules that rename these names so; `where` is what errors call their owner.

    Raises `UsageError` for what is no renaming, and for a pattern that fits no name. Whether two tensors get one name
    is not checked.
    """
    given = checked(renaming)
    if not callable(given) and only_prefixes(given):
        return tuple((str(old), new) for old, new in given)
    return rules_for(called(given, names, where))


def unused(renaming: Renaming, names: Iterable[str], where: str) -> list[str]:
    """What to tell of prefixes that fit no name: they may be meant for other models, or be slips."""
    given, own = checked(renaming), sorted(names)
    prefixes = [] if callable(given) else [old for old, _ in given if isinstance(old, str)]
    some = ", ".join(printable(name) for name in own[:: max(1, len(own) // _SHOWN)][:_SHOWN])
    return [
        f"rename: no tensor of {where} begins with {printable(old)}: they are called {some or '(there are none)'}"
        for old in prefixes
        if not any(name.startswith(old) for name in own)
    ]


_SHOWN = 3  # names that show a user what prefixes are compared with


def called(renaming: Renaming, names: Iterable[str], where: str) -> dict[str, str]:
    """What each name becomes. Raises as `rename_rules`."""
    given, own = checked(renaming), list(names)
    if not callable(given):
        for old, _ in given:
            if isinstance(old, re.Pattern) and not any(map(old.search, own)):
                raise UsageError(f"rename: the pattern {old.pattern!r} fits no tensor of {where}")
    return {name: _called(given, name) for name in own}


def _called(given: Any, name: str) -> str:
    if callable(given):
        new = given(name)
        if not isinstance(new, str):
            raise UsageError(f"rename: the function gives {new!r} for the tensor {name!r}, which is no name")
        return new
    for old, new in given:
        if isinstance(old, re.Pattern):
            if old.search(name):
                return _substituted(old, new, name)
        elif name.startswith(old):
            return str(new) + name[len(old) :]
    return name


def _substituted(pattern: re.Pattern[str], new: str, name: str) -> str:
    try:
        return pattern.sub(new, name)
    except (re.error, IndexError) as error:
        raise UsageError(f"rename: {new!r} does not go with the pattern {pattern.pattern!r}: {error}") from None

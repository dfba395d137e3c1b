"""A package's public names, each imported when it is first asked for: importing one part does not load the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_members(package: str, homes: Mapping[str, str], parts: Sequence[str] = ()) -> Callable[[str], Any]:
    """Give the `__getattr__` (PEP 562) of a package; `homes` leads from its names to the modules inside it.

    `module:other` is for a member that has another name there. What is found stays in the package. `parts` are
    packages inside it that are its members, too.
    """

    def find(name: str) -> Any:
        if name in parts:
            return import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other = homes[name].partition(":")
        member = getattr(import_module(f"{package}.{module}"), other or name)
        setattr(sys.modules[package], name, member)
        return member

    return find

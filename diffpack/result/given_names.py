"""Whose names the tensors of a result in memory get: the result's, or those of a base that is to take them back."""

from __future__ import annotations

from typing import Literal

from diffpack.errors import UsageError
from diffpack.result.result import Result


def names_given(result: Result, names: Literal["base", "result"] | None) -> dict[str, str]:
    """Lead from the names given to those of the result; several may lead to one, where the base ties its tensors.

    None chooses the base's for a module, for what `state_dict()` gave, and for other tensors in memory that have names
    of their own or are not just the diff's base: a model at work, too.
    Raises `UsageError` if two tensors would get one name.
    """
    naming, base = result.view.naming, result.base
    if names is None:
        just_the_base = naming.recorded and result.extent.whole and not result.extent.extra
        own = base.live and (base.named_for_module or not just_the_base)
        names = "base" if own else "result"
    given = {name: name for name in result.tensors}
    if names == "base":
        given = {}
        for name in result.tensors:
            new = naming.called(name)
            if new in given:
                raise UsageError(
                    f"{base.source}: both {given[new]!r} and {name!r} would be called {new!r}, as the base's: "
                    'names="result" gives them the names of the result'
                )
            given[new] = name
    own_names = {own: name for name, own in naming.view.items()}
    for further, first in result.extent.tied.items():
        name = own_names[first]
        new = further if names == "base" else own_names[further]
        if name in result.tensors:
            given.setdefault(new, name)
    return given

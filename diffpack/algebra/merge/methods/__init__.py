"""The registry of merge methods, by name."""

from __future__ import annotations

from diffpack.algebra.merge.method import Method
from diffpack.algebra.merge.methods import (
    breadcrumbs,
    dare,
    della,
    linear,
    magnitude,
    sce,
    slerp,
    task_arithmetic,
    ties,
)
from diffpack.errors import UsageError

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        task_arithmetic.METHOD,
        linear.METHOD,
        linear.AVERAGE,
        magnitude.METHOD,
        ties.METHOD,
        dare.LINEAR,
        dare.TIES,
        della.METHOD,
        della.LINEAR,
        breadcrumbs.METHOD,
        breadcrumbs.TIES,
        sce.METHOD,
        slerp.METHOD,
    )
}
"""Every method, in the order of the documentation."""


def find_method(name: str) -> Method:
    """The method of a name. Raises `UsageError`."""
    try:
        return METHODS[name]
    except KeyError:
        raise UsageError(f"the method is one of {', '.join(METHODS)}, not {name!r}") from None

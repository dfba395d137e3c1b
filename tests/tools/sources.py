"""Diffs of small models that compare tensors with base tensors of other names wherever they can, or nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from diffpack.extraction.scan import references, survey


def _last(item: Any, kin: Any, *_: Any) -> Any:
    """The last base tensor of the dtype and shape, near or not; None if that is the tensor's own."""
    own = kin.own[-1]
    return None if own == item.pair.base_name else references._Found(kin.names[-1], own)


@contextmanager
def any_source() -> Iterator[None]:
    """Within it any other base tensor of equal dtype and shape is the better reference of a tensor."""
    with (
        mock.patch.object(references, "_nearest", _last),
        mock.patch.object(references, "_doubtful", return_value=True),
        mock.patch.object(references, "NAME_BYTES", 0),
    ):
        yield


@contextmanager
def no_source() -> Iterator[None]:
    """Within it tensors are compared by name alone."""
    with mock.patch.object(survey, "with_better_references", lambda stored, *_, **__: stored):
        yield

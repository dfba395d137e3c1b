"""A base that is not a diff's may be the result already, or another link of its chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffpack.checkpoints import Checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff
from diffpack.diff.links import diffs_beside, place_in_chain
from diffpack.errors import WrongBaseError


def fingerprint_of_result(error: WrongBaseError, diff: Diff, base: Checkpoint, threads: int | None) -> str:
    """The fingerprint of a base that was refused but is the diff's result already.

    For any other raises the error again, saying where in the chain of the diffs beside this one the base stands, if it
    does.
    """
    found = fingerprint(base, threads=threads)
    if found == diff.manifest.result.fingerprint:
        return found
    raise _placed(error, diff, found) from None


@contextmanager
def told_where(diff: Diff, base: Checkpoint, threads: int | None) -> Iterator[None]:
    """Say of a base that the body refuses where in the chain of the diffs beside this one it stands, if it does."""
    try:
        yield
    except WrongBaseError as error:
        raise _placed(error, diff, fingerprint(base, threads=threads)) from None


def _placed(error: WrongBaseError, diff: Diff, found: str) -> WrongBaseError:
    beside = diffs_beside(diff)
    place = place_in_chain(diff, found, beside)
    for item in beside:
        item.close()
    return WrongBaseError(f"{error}; {place}", error.tensors) if place else error

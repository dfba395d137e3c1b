"""Too little memory is an error of the library's that names the files, and still a MemoryError."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import diffpack
from diffpack.errors import DiffpackError
from diffpack.result import apply
from diffpack.support.memory import memory_told
from tests.tools.models import model, tune


def test_a_result_that_does_not_fit_names_the_diff(tmp_path, monkeypatch):
    base = model()
    diffpack.extract(base, tune(base), tmp_path / "t.dpk")

    def no_room(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(apply, "_empty_arrays", no_room)
    with pytest.raises(
        DiffpackError, match=r"load of .*t\.dpk: not enough memory \(Unable to allocate 9 TiB\)$"
    ) as got:
        diffpack.load(base, tmp_path / "t.dpk")
    assert isinstance(got.value, MemoryError)


def test_other_errors_and_results_pass_and_the_signature_stays():
    @memory_told
    def verb(size: int, *, more: bool = False) -> int:
        return len(np.ones(size)) if size else 1 // 0

    assert verb(3) == 3
    with pytest.raises(ZeroDivisionError):
        verb(0)
    assert "more: 'bool' = False" in str(inspect.signature(verb))

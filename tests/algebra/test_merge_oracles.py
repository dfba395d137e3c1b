"""Every merge method gives what mergekit and PEFT give on the same models and, if random, with the same random numbers.

The tools' results are frozen in `tests/oracles` by `make oracle`.
"""

from __future__ import annotations

import numpy as np
import pytest

from diffpack.algebra.merge import METHODS, method
from tests.tools.merge_oracles import ARRAYS, CASES, NAMES, Stored, merged


@pytest.mark.parametrize("at", range(len(CASES)), ids=[f"{case['what']}, {case['models']}" for case in CASES])
def test_a_method_gives_what_the_tool_gives(at, monkeypatch):
    monkeypatch.setattr(method, "Draw", Stored)
    found = merged(CASES[at])
    for name in NAMES:
        expected = ARRAYS[f"output.{at}.{name}"]
        assert expected.any()
        assert np.allclose(found[name], expected, rtol=2e-6, atol=1e-7), name
        assert np.array_equal(found[name] == 0, expected == 0), name


def test_every_method_has_an_oracle():
    assert {case["ours"]["method"] for case in CASES} == set(METHODS)

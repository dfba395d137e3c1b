"""Every merge method gives what mergekit and PEFT give on the same models and, if random, with the same random numbers.

The tools' results are frozen in `oracles/` by `make oracle`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.algebra.merge import METHODS, method

HERE = Path(__file__).parent / "oracles"
CASES = json.loads((HERE / "oracles.json").read_text())["cases"]
with np.load(HERE / "oracles.npz") as _file:  # all at once: numpy parses each array's header as Python
    ARRAYS = {name: _file[name] for name in _file.files}
NAMES = ("matrix", "vector", "conv")
DIFFS = 3


class Stored:
    """Random numbers as the tools had them."""

    def __init__(self, _: int, diff: int, name: str) -> None:
        self._numbers = ARRAYS[f"uniform.{diff}.{name}"].reshape(-1)

    def uniform(self, count):
        assert count == self._numbers.size  # a number for each entry: the models of random methods are dense
        return self._numbers.astype(np.float64)


def merged(case):
    base = {name: np.zeros(ARRAYS[f"uniform.0.{name}"].shape, np.float32) for name in NAMES}
    tuned = [{name: ARRAYS[f"input.{case['models']}.{at}.{name}"] for name in NAMES} for at in range(DIFFS)]
    diffs = [diffpack.extract(base, model, values="f32") for model in tuned]
    return diffpack.load(base, diffpack.merge(diffs, **case["ours"]))


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

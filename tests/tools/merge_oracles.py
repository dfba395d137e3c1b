"""What mergekit and PEFT make of small models, and the same models merged by diffpack.

The tools' results are frozen in `tests/oracles` by `make oracle`.
"""

from __future__ import annotations

import json

import numpy as np

import diffpack
from tests.tools import ORACLES

CASES = json.loads((ORACLES / "oracles.json").read_text())["cases"]
with np.load(ORACLES / "oracles.npz") as _file:  # all at once: numpy parses each array's header as Python
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
    """The same merge by diffpack. Models that are "tuned" have a base, that of the others is zero."""
    base = {name: ARRAYS[f"base.{name}"] for name in NAMES}
    if case["models"] != "tuned":
        base = {name: np.zeros_like(array) for name, array in base.items()}
    count = 2 if case["ours"]["method"] == "slerp" else DIFFS
    tuned = [{name: ARRAYS[f"input.{case['models']}.{at}.{name}"] for name in NAMES} for at in range(count)]
    diffs = [diffpack.extract(base, model, values="f32") for model in tuned]
    return diffpack.load(base, diffpack.merge(diffs, base=base, **case["ours"]))

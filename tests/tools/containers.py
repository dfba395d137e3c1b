"""A small diff in each of the two containers."""

from __future__ import annotations

import numpy as np

import diffpack


def whole(tmp_path):
    base = {"w": np.zeros((20, 30), np.float32), "v": np.zeros(7, np.float32)}
    tuned = {"w": base["w"].copy(), "v": np.ones(7, np.float32)}
    tuned["w"][3, 4], tuned["w"][9] = 2, 1
    diff = diffpack.extract(base, tuned)
    diffpack.convert(diff, tmp_path / "d.h5")
    diffpack.convert(diff, tmp_path / "m", to="scipy")
    return base, tuned

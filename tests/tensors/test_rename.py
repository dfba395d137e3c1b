"""Renamed tensors keep names of their own."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError


def test_renaming_two_tensors_to_one_name_is_refused():
    arrays = {"a.w": np.zeros(1, np.float32), "w": np.zeros(1, np.float32)}
    with pytest.raises(UsageError, match="'w'"):
        diffpack.extract(arrays, arrays, rename=[("a.", "")])

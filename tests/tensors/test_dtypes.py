from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpack.tensors.dtypes import DTYPES, from_float, ordered, to_float, unordered

ALL_BITS = {8: np.arange(1 << 8, dtype=np.uint8), 16: np.arange(1 << 16, dtype=np.uint16)}


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d.word_bits <= 16], ids=lambda d: d.name)
def test_ordered_is_a_bijection_and_its_own_inverse(dtype):
    words = ALL_BITS[dtype.word_bits]
    line = ordered(words, dtype)
    assert np.unique(line).size == words.size
    assert np.array_equal(unordered(line, dtype), words)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_ordered_inverts_at_64_bits(values):
    words = np.array(values, np.uint64)
    assert np.array_equal(unordered(ordered(words, DTYPES["F64"]), DTYPES["F64"]), words)


def test_ordered_follows_the_floats():
    values = np.array([-np.inf, -2.0, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 2.0, np.inf], np.float32)
    line = ordered(values.view(np.uint32), DTYPES["F32"])
    assert (np.diff(line.astype(np.int64)) > 0).all()
    assert line[4] == -1
    assert line[5] == 0


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_bf16_rounding_is_that_of_ml_dtypes(values):
    array = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert np.array_equal(from_float(array, DTYPES["BF16"]), expected)


def test_float64_to_bf16_rounds_once():
    above_half = 1 + 2**-8 + 2**-40  # rounds to 1 + 2^-8 in float32, a tie that would then go to even: 1.0
    words = from_float(np.array([above_half, -above_half]), DTYPES["BF16"])
    assert words.tolist() == [0x3F81, 0xBF81]


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
def test_every_nan_becomes_the_canonical_one(name):
    dtype = DTYPES[name]
    wide = np.array([np.nan, -np.nan], np.float64 if name == "F64" else np.float32)
    expected = {"F64": 0x7FF8 << 48, "F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}[name]
    assert set(from_float(wide, dtype).tolist()) == {expected}


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_widening_is_exact(name):
    dtype = DTYPES[name]
    words = ALL_BITS[16]
    wide = to_float(words, dtype)
    finite = ~np.isnan(wide)
    assert np.array_equal(from_float(wide, dtype)[finite], words[finite])

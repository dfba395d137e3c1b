"""What factors come to: the same bits whatever the order whole numbers are summed in, and in one order for floats."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpack.errors import CorruptFileError
from diffpack.format.factors.line import INT
from diffpack.format.factors.product import EXACT_IN_FLOAT64, Factors, MatrixFactors
from diffpack.format.values.floats import FLOATS
from diffpack.tensors.dtypes import DTYPES

SIZES = st.integers(1, 5)


@st.composite
def factors_of(draw, values=INT, limits=(7, 300, 32767)):
    """The factors of a record: one matrix or a stack, of ranks from 0 up, with numbers up to a drawn limit."""
    rows, columns, most = draw(SIZES), draw(SIZES), draw(st.sampled_from(limits))
    matrices = []
    for rank in draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)):
        sides = [draw(st.lists(st.integers(-most - 1, most), min_size=rank * size, max_size=rank * size))
                 for size in (rows, columns)]  # fmt: skip
        weights = draw(st.lists(st.integers(0, 2 * most), min_size=rank, max_size=rank))
        left, right = (np.array(side, np.int16).reshape(rank, -1 if rank else size)
                       for side, size in zip(sides, (rows, columns), strict=True))  # fmt: skip
        matrices.append(MatrixFactors(values, left, right, np.array(weights, np.uint16)))
    scale = draw(st.floats(-(2.0**60), 2.0**60, width=32))
    return Factors(rows, columns, np.float32(scale), tuple(matrices))


def rounded_once(total, scale):
    """A sum, at most 2^53, times a float32: rounded to float64, then to float32."""
    with np.errstate(over="ignore"):
        return np.float32(np.float64(total) * np.float64(scale))


def terms(matrix, i, j):
    """What is summed for an entry, in Python's integers."""
    components = zip(matrix.weights.tolist(), matrix.left[:, i].tolist(), matrix.right[:, j].tolist(), strict=True)
    return [weight * left * right for weight, left, right in components]


@settings(max_examples=200, deadline=None)
@given(factors_of(), st.data())
def test_whole_numbers_come_to_the_exact_sum_in_any_part_and_order(factors, data):
    factors.check("here")
    expected = []
    for matrix in factors.matrices:
        order = data.draw(st.permutations(range(matrix.rank)))
        for i in range(factors.rows):
            for j in range(factors.columns):
                summed, own = np.float64(0), terms(matrix, i, j)
                for k in order:
                    summed += np.float64(own[k])
                assert int(summed) == sum(own)
                expected.append(rounded_once(summed, factors.scale))
    whole = factors.rows * factors.columns * len(factors.matrices)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, whole), st.integers(0, whole))))
    part = factors.change(start, stop)
    assert part.dtype == np.float32
    assert np.array_equal(part, np.array(expected[start:stop], np.float32))
    cuts = [0, *sorted(data.draw(st.sets(st.integers(0, whole), max_size=4))), whole]
    pieces = [factors.change(a, b) for a, b in pairwise(cuts)]
    assert np.concatenate(pieces).tobytes() == factors.change(0, whole).tobytes()


def order_of_components(factors, order):
    """The same factors with the components of each matrix in another order."""
    matrices = [
        MatrixFactors(m.values, m.left[own], m.right[own], m.weights[own])
        for m, own in zip(factors.matrices, order, strict=True)
    ]
    return Factors(factors.rows, factors.columns, factors.scale, tuple(matrices))


@settings(max_examples=100, deadline=None)
@given(factors_of(), st.data())
def test_whole_components_may_be_exchanged(factors, data):
    order = [data.draw(st.permutations(range(matrix.rank))) for matrix in factors.matrices]
    whole = factors.rows * factors.columns * len(factors.matrices)
    other = order_of_components(factors, [np.array(own, np.intp) for own in order])
    assert np.array_equal(other.change(0, whole), factors.change(0, whole))


@pytest.mark.parametrize("most", [3, 100, 20000])
def test_torch_multiplies_whole_numbers_to_the_same_bits(most):
    """Its matmul sums in blocks of its own; float32 is exact for the smallest of these, float64 for all."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(most)
    rank, rows, columns, scale = 24, 130, 257, np.float32(-3.1e-7)
    left, right = (rng.integers(-most, most + 1, (rank, size)).astype(np.int16) for size in (rows, columns))
    weights = rng.integers(0, 2 * most, rank).astype(np.uint16)
    matrix = MatrixFactors(INT, left, right, weights)
    assert matrix.bound <= EXACT_IN_FLOAT64
    kinds = [torch.float64, torch.float32] if matrix.bound <= 1 << 24 else [torch.float64]
    assert len(kinds) == (2 if most == 3 else 1)
    expected = Factors(rows, columns, scale, (matrix,)).change(0, rows * columns).reshape(rows, columns)
    for kind in kinds:
        own, other = (torch.from_numpy(side.astype(np.int64)).to(kind) for side in (left, right))
        weighed = other * torch.from_numpy(weights.astype(np.int64)).to(kind)[:, None]
        changed = ((own.T @ weighed).to(torch.float64) * float(scale)).to(torch.float32)
        assert np.array_equal(changed.numpy(), expected)


def as_float64(numbers, values):
    """The floats that ordered integers stand for, by hand."""
    name = {"f32": "F32", "f16": "F16", "bf16": "BF16"}[values]
    bits, size = numbers.astype(np.int64), DTYPES[name].word_bits
    words = np.where(bits < 0, bits ^ ((1 << size - 1) - 1), bits) & ((1 << size) - 1)
    narrow = words.astype(f"u{size // 8}").view(f"f{size // 8}") if values != "bf16" else None
    floats = (words.astype(np.uint32) << 16).view(np.float32) if narrow is None else narrow
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return floats.astype(np.float64)


def in_order(left, right):
    """S of one entry: after each component rounded to float64, told by rational numbers."""
    total = 0.0
    for a, b in zip(left, right, strict=True):
        total = float(Fraction(total) + Fraction(a) * Fraction(b))
    return total


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FLOATS)), st.data())
def test_floats_are_summed_in_the_order_of_components(values, data):
    rows, columns, rank = data.draw(SIZES), data.draw(SIZES), data.draw(st.integers(0, 5))
    kind = FLOATS[values].stored.step
    ints = np.iinfo(kind)
    number = st.integers(int(ints.min), int(ints.max)).filter(
        lambda n: np.isfinite(x := as_float64(np.array([n]), values)[0]) and abs(x) < 2.0**40
    )
    left, right = (
        np.array(data.draw(st.lists(number, min_size=rank * size, max_size=rank * size)), kind).reshape(rank, size)
        for size in (rows, columns)
    )
    scale = np.float32(data.draw(st.floats(-(2.0**20), 2.0**20, width=32)))
    factors = Factors(rows, columns, scale, (MatrixFactors(values, left, right, np.ones(rank, np.uint16)),))
    factors.check("here")
    one, other = as_float64(left, values), as_float64(right, values)
    expected = [rounded_once(in_order(one[:, i], other[:, j]), scale) for i in range(rows) for j in range(columns)]
    start = data.draw(st.integers(0, rows * columns))
    assert np.array_equal(factors.change(start, rows * columns), np.array(expected[start:], np.float32))


def test_the_order_of_floats_counts():
    """Of 1, 2^60 and -2^60 the 1 is left only where it comes last."""

    def change(*order):
        numbers = {1: 1.0, 2: 2.0**60, 3: -(2.0**60)}
        left = np.array([[numbers[k]] for k in order], np.float32).view(np.int32)
        left = np.where(left < 0, left ^ 0x7FFFFFFF, left).astype(np.int32)
        right = np.full((3, 1), 0x3F800000, np.int32)
        matrix = MatrixFactors("f32", left, right, np.ones(3, np.uint16))
        return Factors(1, 1, np.float32(1), (matrix,)).change(0, 1).tolist()

    assert change(1, 2, 3) == [0.0]
    assert change(2, 3, 1) == [1.0]


@pytest.mark.parametrize(("least", "weight", "fits"), [(-32768, 8192, True), (-32768, 8193, False)])
def test_sums_up_to_2_to_the_53_are_exact_and_no_others_are_taken(least, weight, fits):
    side = np.full((1024, 1), least, np.int16)
    matrix = MatrixFactors(INT, side, side, np.full(1024, weight, np.uint16))
    assert (matrix.bound <= EXACT_IN_FLOAT64) == fits
    factors = Factors(1, 1, np.float32(2.0**-20), (matrix,))
    if fits:
        factors.check("here")
        assert factors.change(0, 1).tolist() == [2.0**33]
    else:
        with pytest.raises(CorruptFileError, match="U5"):
            factors.check("here")

"""spec/reader.py: what factors add to a grid, compared with rational numbers that are rounded by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spec.test_codings import bits_of, ordered, raw_floats, value_of
from tests.tools import craft
from tests.tools.craft import Stream, stream
from tests.tools.drafts import VALIDATOR, Tensors, reader, refused, run

NUMBERS = {"int": "i16", "f32": "i32", "f16": "i16", "bf16": "i16"}
Matrix = tuple[int, int, list[int]]  # rows, columns, ranks


def rounded(value: Fraction, dtype: str) -> Fraction:
    """The nearest float of a dtype; zeros have no sign here."""
    found = value_of(bits_of(value, dtype), dtype)
    assert isinstance(found, Fraction) or found == "-0"
    return Fraction(0) if isinstance(found, str) else found


def meant(number: int, values: str) -> Fraction:
    """What a number of a factor means."""
    if values == "int":
        return Fraction(number)
    width = int(NUMBERS[values][1:])
    found = value_of(ordered(number % (1 << width), width) % (1 << width), values.upper())
    assert isinstance(found, Fraction) or found == "-0"
    return Fraction(0) if isinstance(found, str) else found


def products(matrix: Matrix, line: list[Fraction], weights: list[int], scale: Fraction, whole: bool) -> list[Fraction]:
    """What the factors of a record add, taking their numbers and weights from the fronts of the lists."""
    rows, columns, ranks = matrix
    found = []
    for rank in ranks:
        left, right = line[: rank * rows], line[rank * rows : rank * (rows + columns)]
        del line[: rank * (rows + columns)]
        own = weights[:rank] or [1] * rank
        del weights[:rank]
        for i in range(rows):
            for j in range(columns):
                total = Fraction(0)
                for k in range(rank):
                    term = own[k] * left[k * rows + i] * right[k * columns + j]
                    total = total + term if whole else rounded(total + term, "F64")
                found.append(rounded(rounded(total * scale, "F64"), "F32"))
    return found


def span(numbers: list[int], dtype: str) -> list[Stream]:
    """The chunk of a span of one class."""
    return [stream("u8", [0, 2]), stream("i8", []), stream("i8", []), stream(dtype, numbers)]


def cuts(data: Any, length: int) -> list[int]:
    """Ends of spans of a line."""
    return sorted({*data.draw(st.sets(st.integers(1, length), max_size=3)), length}) if length else []


def file_of(
    base: Tensors,
    result: Tensors,
    factors: dict[str, Any],
    scaling: list[Stream],
    chunks: list[list[Stream]],
    **more: Any,
) -> bytes:
    names = sorted(base)
    group = craft.group(names, base, result, positions="levels", values="grid", factors=factors, **more)
    requires = ["grid", "levels", "lowrank"]
    return craft.build(craft.manifest(base, result, [group], requires=requires), [scaling, *chunks], minor=2)


def single(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(NUMBERS)), st.data())
def test_products_of_factors_are_added_to_the_grid(values: str, data: Any) -> None:
    sizes = st.integers(1, 3)
    matrices: list[Matrix] = [
        (data.draw(sizes), data.draw(sizes), data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=2)))
        for _ in "ab"
    ]
    words = [rows * columns * len(ranks) for rows, columns, ranks in matrices]
    rank, length = sum(sum(m[2]) for m in matrices), sum((m[0] + m[1]) * sum(m[2]) for m in matrices)
    width = int(NUMBERS[values][1:])
    number = st.integers(-(1 << width - 1), (1 << width - 1) - 1)
    if values != "int":  # far from what U5 refuses
        number = number.filter(lambda n: abs(np.float64(as_float(n, values))) < 2.0**30)
    line = data.draw(st.lists(number, min_size=length, max_size=length))
    weights = data.draw(st.lists(st.integers(0, 65535), min_size=rank, max_size=rank)) if values == "int" else []
    weights = weights if data.draw(st.booleans()) else []
    scales = [data.draw(st.floats(-(2.0**20), 2.0**20, width=32)) for _ in "ab"]
    grid = [data.draw(st.floats(0, 2.0**20, width=32)) for _ in "ab"]
    steps = data.draw(st.lists(st.integers(-3, 3), min_size=sum(words), max_size=sum(words)))
    old = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=sum(words), max_size=sum(words)))

    rest, weighted, added = [meant(n, values) for n in line], list(weights), []
    for matrix, scale in zip(matrices, scales, strict=True):
        added += products(matrix, rest, weighted, Fraction(scale), values == "int")
    new, which = [], [0] * words[0] + [1] * words[1]
    for bits, one, step, record in zip(old, added, steps, which, strict=True):
        value = rounded(one + rounded(Fraction(grid[record]) * 256 * step, "F32"), "F32")
        float32 = np.array([bits], np.uint32).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            total = float32 + np.float32(float(value))
        here = 0x7FC00000 if np.isnan(total[0]) else int(total.view(np.uint32)[0])
        new.append(here if value else bits)

    def tensors(bits: list[int]) -> Tensors:
        parts = {"a": bits[: words[0]], "b": bits[words[0] :]}
        return {name: ("F32", (len(part),), raw_floats("F32", part)[2]) for name, part in parts.items()}

    ends = cuts(data, length)
    spans = [span(line[a:b], NUMBERS[values]) for a, b in pairwise([0, *ends])]
    own_ends = cuts(data, sum(words))
    for a, b in pairwise([0, *own_ends]):
        head, rows, columns, numbers = span(steps[a:b], "i16")
        spans.append([head, rows, columns, stream("i8", [0, 0, 0]), numbers])
    scaling = [
        stream("u32", map(single, grid)), stream("u32", map(single, scales)), stream("u16", weights),
    ]  # fmt: skip
    factors = {"values": values, "matrices": [list(matrix) for matrix in matrices], "ends": ends}
    base, result = tensors(old), tensors(new)
    file = file_of(base, result, factors, scaling, spans, ends=own_ends)
    assert run(file, base) == result
    VALIDATOR.validate(reader.read(file).manifest)


def as_float(number: int, values: str) -> float:
    """The same as meant(), by NumPy; NaN and infinities too."""
    width = int(NUMBERS[values][1:])
    bits = np.array([ordered(number % (1 << width), width) % (1 << width)], f"<u{width // 8}")
    if values == "bf16":
        return float((bits.astype("<u4") << 16).view("<f4")[0])
    return float(bits.view(f"<f{width // 8}")[0])


def in_classes(numbers: np.ndarray[Any, Any], levels: list[int], dtype: str) -> tuple[list[int], list[Stream]]:
    """The kinds of a span's classes and their streams, as section 5 splits them."""
    classes: list[list[int]] = [[]]
    for level in sorted(set(levels)):
        classes[-1] += [at for at, own in enumerate(levels) if own == level]
        if len(classes[-1]) >= 4096:
            classes.append([])
    last = classes.pop()
    classes[-1:] = [[*classes[-1], *last]] if classes else [last]
    kinds, streams = [], []
    for places in map(sorted, classes):
        own = numbers[places]
        changed = np.flatnonzero(own)
        kinds.append(0 if not len(changed) else 1 if len(changed) < len(own) // 2 else 2)
        if kinds[-1] == 1:
            streams += [stream("u16", np.diff(changed, prepend=-1) - 1), stream(dtype, own[changed])]
        if kinds[-1] == 2:
            streams.append(stream(dtype, own))
    return kinds, streams


def test_factors_in_classes() -> None:
    """A row of levels is a component of a factor, a column a row or column of the matrix; spans cut both."""
    rows, columns, rank, at = 9000, 2, 2, 12000
    generator = np.random.default_rng(1)
    left = generator.integers(-9, 10, (rank, rows)).astype(np.int16)
    left[0, 1::2] = 0  # a class of kind 0
    left[1, ::3] = 0
    left[:, 0] = 0  # adds nothing to the first row, which is -0.0 and stays so
    right = np.array([[3, 0], [-700, 5]], np.int16)
    of_rows, of_columns = [0, 2, 0, 3], [*([0, 1] * (rows // 2)), 0, 0]
    whole = np.add.outer(of_rows[:2], of_columns[:rows]).ravel().tolist()
    whole += np.add.outer(of_rows[2:], of_columns[rows:]).ravel().tolist()
    line = np.concatenate([left.ravel(), right.ravel()])
    spans, found = [], []
    for a, b, levels_of_rows, levels_of_columns in (
        (0, at, of_rows[:2], of_columns[:rows]),
        (at, len(line), of_rows[1:], of_columns),
    ):
        kinds, streams = in_classes(line[a:b], whole[a:b], "i16")
        found.append(kinds)
        spans.append(
            [stream("u8", [0, *kinds]), stream("i8", levels_of_rows), stream("i8", levels_of_columns), *streams]
        )
    assert found == [[2, 1], [2]]
    scale = np.float32(2**-7)
    old = generator.standard_normal((rows, columns)).astype(np.float32)
    old[0] = -0.0
    new = old + (left.T.astype(int) @ right.astype(int)).astype(np.float32) * scale
    new[0] = -0.0
    base: Tensors = {"w": ("F32", old.shape, old.tobytes())}
    result: Tensors = {"w": ("F32", new.shape, new.tobytes())}
    nothing = [stream("u8", [0, 0]), stream("i8", []), stream("i8", []), stream("i8", [0] * 3)]
    scaling = [stream("u32", [0]), stream("u32", [single(scale)]), stream("u16", [])]
    factors = {"values": "int", "matrices": [[rows, columns, [rank]]], "ends": [at, len(line)]}
    assert refused(file_of(base, result, factors, scaling, [*spans, nothing]), base) == ""

"""The words of a span are counted by rows and columns as if each was looked at."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpack.format.positions.geometry import Geometry
from diffpack.format.positions.levels import NONE, Plan
from diffpack.tensors.dtypes import DTYPES

SHAPES = st.lists(st.lists(st.integers(1, 40), min_size=0, max_size=3).map(tuple), min_size=1, max_size=4)


@settings(max_examples=200)
@given(SHAPES, st.integers(0, 2**32), st.booleans(), st.booleans(), st.integers(1, 127))
def test_classes_are_counted_as_they_are_made(shapes, seed, with_rows, with_columns, most):
    rng = np.random.default_rng(seed)
    dtype = DTYPES["F32"]
    words = [dtype.words(shape) for shape in shapes]
    start = int(rng.integers(words[0]))  # a span cuts its first and its last record
    stop = int(rng.integers(words[-1])) + 1
    bounds = [[0, size] for size in words]
    bounds[0][0], bounds[-1][1] = start, max(stop, start + 1) if len(shapes) == 1 else stop
    geometry = Geometry.of([(dtype, shape, *part) for shape, part in zip(shapes, bounds, strict=True)])
    rows = rng.integers(-most - 1, most + 1, geometry.rows).astype(np.int8) if with_rows else NONE
    columns = rng.integers(-most - 1, most + 1, geometry.columns).astype(np.int8) if with_columns else NONE
    plan = Plan(rows, columns, 0)
    keys = plan.keys(geometry, None)
    if rows.size or columns.size:
        counts = geometry.level_counts(rows, columns)
        assert counts.tolist() == np.bincount(keys.astype(np.int64) + 256, minlength=512).tolist()
    assert plan.class_sizes(geometry) == plan.split(geometry, None).sizes


def test_a_large_span_is_counted_by_its_rows_and_columns():
    """2^24 words in rows of 2^12: as they are counted one by one."""
    geometry = Geometry.of([(DTYPES["F32"], (1 << 12, 1 << 12), 5, (1 << 24) - 7)])
    rng = np.random.default_rng(1)
    rows, columns = (rng.integers(-3, 4, 1 << 12).astype(np.int8) for _ in range(2))
    assert geometry.level_counts(rows, columns).sum() == geometry.words == (1 << 24) - 12
    assert Plan(rows, columns).class_sizes(geometry) == Plan(rows, columns).split(geometry, None).sizes

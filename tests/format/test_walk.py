"""The compiled walk takes arrays that fit one another, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from diffpack.format.positions import split

walk = split._walk
pytestmark = pytest.mark.skipif(walk is None, reason="it was not compiled when this was installed")

KEYS = np.array([3, 0, 3, 1, 3], np.uint8)
TABLE = np.minimum(np.arange(256), 3).astype(np.uint16)  # four classes


def integers(*values):
    return np.array(values, np.int64)


def test_words_are_sorted_by_class_and_found_by_rank():
    order = np.empty(5, np.int64)
    walk.order(KEYS, 1, TABLE, integers(0, 1, 2, 2), order)
    assert order.tolist() == [1, 3, 0, 2, 4]
    classes, ranks = np.empty(2, np.uint16), np.empty(2, np.int64)
    walk.ranks(KEYS, 1, TABLE, np.zeros(4, np.int64), integers(2, 3), classes, ranks)
    assert (classes.tolist(), ranks.tolist()) == ([3, 1], [1, 0])
    places = np.empty(3, np.int64)
    walk.select(KEYS, 1, TABLE, integers(0, 0, 1, 1, 3), integers(0, 0, 2), places)
    assert places.tolist() == [3, 0, 4]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("count", (KEYS, 1, np.zeros(255, np.int64))),
        ("count", (KEYS, 2, np.zeros(65536, np.int64))),
        ("count", (KEYS, 3, np.zeros(256, np.int64))),
        ("order", (KEYS, 1, TABLE, np.zeros(3, np.int64), np.empty(5, np.int64))),
        ("order", (KEYS, 1, TABLE, np.zeros(4, np.int64), np.empty(4, np.int64))),
        ("order", (KEYS, 1, TABLE[:255], np.zeros(4, np.int64), np.empty(5, np.int64))),
        ("order", (KEYS, 1, TABLE, integers(0, 1, 2, 3), np.empty(5, np.int64))),
        ("order", (KEYS, 1, TABLE, integers(-1, 1, 2, 2), np.empty(5, np.int64))),
        ("ranks", (KEYS, 1, TABLE, np.zeros(4, np.int64), integers(5), np.empty(1, np.uint16), np.empty(1, np.int64))),
        ("ranks", (KEYS, 1, TABLE, np.zeros(4, np.int64), integers(-1), np.empty(1, np.uint16), np.empty(1, np.int64))),
        ("ranks", (KEYS, 1, TABLE, np.zeros(4, np.int64), integers(1), np.empty(2, np.uint16), np.empty(1, np.int64))),
        ("select", (KEYS, 1, TABLE, integers(0, 0, 1, 1, 2), integers(0, 0, 2), np.empty(3, np.int64))),
        ("select", (KEYS, 1, TABLE, integers(0, 2, 1, 1, 3), integers(0, 0, 2), np.empty(3, np.int64))),
        ("select", (KEYS, 1, TABLE, integers(0, 0, 1, 1, 3), integers(0, 0, 3), np.empty(3, np.int64))),
        ("select", (KEYS, 1, TABLE, integers(0, 0, 1, 1, 3), integers(0, 2, 1), np.empty(3, np.int64))),
        ("select", (KEYS, 1, TABLE, integers(0, 0, 1, 1, 3), integers(0, 0, 2), np.empty(2, np.int64))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, arguments):
    arguments = tuple(part.copy() if isinstance(part, np.ndarray) else part for part in arguments)
    with pytest.raises(ValueError, match="do not fit"):
        getattr(walk, name)(*arguments)

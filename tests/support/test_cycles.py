"""Searches for cycles are rare in a body, and as before after it."""

from __future__ import annotations

import gc

import pytest

from diffpack.support.cycles import rare_collections


@pytest.fixture(autouse=True)
def _as_before():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_they_are_rare_in_the_body_alone():
    gc.set_threshold(700, 10, 10)
    with rare_collections():
        with rare_collections():
            assert gc.get_threshold()[0] > 10_000
        assert gc.get_threshold()[0] > 10_000
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_leaves_them_as_they_were():
    @rare_collections()
    def failing():
        raise ValueError("told")

    gc.set_threshold(700, 10, 10)
    with pytest.raises(ValueError, match="told"):
        failing()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("first", [0, 10**7])
def test_what_is_rarer_already_stays(first):
    gc.set_threshold(first, 10, 10)
    with rare_collections():
        assert gc.get_threshold()[0] == first


def test_two_threads_that_end_in_another_order_leave_nothing():
    gc.set_threshold(700, 10, 10)
    one, two = rare_collections(), rare_collections()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert gc.get_threshold()[0] > 10_000
    two.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)

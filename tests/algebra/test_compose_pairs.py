"""The table of docs/algebra.md: what becomes of a tensor that two diffs speak of, and when the base is needed."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError
from tests.tools.models import bits

RNG = np.random.default_rng(0)
BASE = {"w": RNG.standard_normal((4, 5)).astype(np.float32), "t": RNG.standard_normal((4, 5)).astype(np.float32)}
BF16 = ml_dtypes.bfloat16


def changed(state):
    array = state["w"].copy()
    array[1::2, 2] = array[1::2, 2] * array.dtype.type(1.5)
    return state | {"w": array}


def bumped(state):
    return state | {"w": (state["w"] + state["w"].dtype.type(1)).astype(state["w"].dtype)}


def back(state):
    return state | {"w": BASE["w"]}


def shaped(*shape):
    def resize(state):
        array = np.zeros(shape, state["w"].dtype)
        both = tuple(slice(min(a, b)) for a, b in zip(shape, state["w"].shape, strict=True))
        array[both] = state["w"][both]
        return state | {"w": array}

    return resize


def typed(dtype):
    return lambda state: state | {"w": state["w"].astype(dtype)}


def gone(state):
    return {name: array for name, array in state.items() if name != "w"}


def replaced(state):
    return state | {"w": np.arange(7, dtype=np.uint8)}


def tied(state):
    return state | {"w": state["t"].copy()}


def target_changed(state):
    return state | {"t": state["t"] * np.float32(2)}


def nothing(state):
    return state


def then(*parts):
    def run(state):
        for part in parts:
            state = part(state)
        return state

    return run


GROWN, CUT, SMALL = shaped(6, 5), shaped(3, 5), shaped(2, 5)
ALONE = [
    ("changed, changed", changed, bumped, "changed"),
    ("changed, undone", changed, back, None),
    ("changed, grown", changed, GROWN, "resized"),
    ("changed, cut", changed, CUT, "resized"),
    ("changed, removed", changed, gone, "removed"),
    ("changed, replaced", changed, replaced, "new"),
    ("changed, tied", changed, tied, "tied"),
    ("grown, changed", GROWN, changed, "resized"),
    ("grown, grown", then(GROWN, changed), shaped(8, 6), "resized"),
    ("grown, cut", then(GROWN, changed), CUT, "resized"),
    ("grown, cut back", then(GROWN, changed), shaped(4, 5), "changed"),
    ("cut, cut", CUT, SMALL, "resized"),
    ("cut, removed", CUT, gone, "removed"),
    ("resized, retyped", GROWN, typed(BF16), "resized"),
    ("retyped, changed", typed(BF16), changed, "retyped"),
    ("retyped, resized", typed(BF16), then(GROWN, changed), "resized"),
    ("nothing, retyped", nothing, then(typed(BF16), changed), "retyped"),
    ("replaced, changed", replaced, bumped, "new"),
    ("removed, new", gone, lambda state: state | {"w": BASE["w"] * 2}, "new"),
    ("tied, untouched", tied, nothing, "tied"),
]
NEW = [
    ("new, changed", changed, "new"),
    ("new, grown", then(GROWN, changed), "new"),
    ("new, cut", CUT, "new"),
    ("new, retyped", typed(BF16), "new"),
    ("new, retyped and cut", then(typed(np.float16), CUT), "new"),
    ("new, removed", gone, None),
    ("new, tied to it", lambda state: state | {"u": state["w"].copy()}, "tied"),
]
NEEDED = [
    ("changed, retyped", changed, typed(BF16)),
    ("cut, grown", CUT, GROWN),
    ("resized and changed, retyped", then(GROWN, changed), typed(BF16)),
    ("retyped, retyped", typed(BF16), typed(np.float32)),
    ("tied, changed", tied, changed),
    ("tied, its target changed", tied, target_changed),
    ("tied, its target removed", tied, lambda state: {"w": state["w"]}),
]


def chain(base, first, then_do):
    states = [base, first(base)]
    states.append(then_do(states[1]))
    return states, [diffpack.extract(a, b, rename=()) for a, b in pairwise(states)]


def became(diff):
    if "w" in diff:
        return diff["w"].kind
    return "removed" if "w" in diff.manifest.removed else "tied" if "w" in diff.manifest.aliases else None


@pytest.mark.parametrize(("first", "second", "kind"), [pytest.param(*row, id=what) for what, *row in ALONE])
def test_pairs_that_need_no_base(first, second, kind):
    states, diffs = chain(BASE, first, second)
    composed = diffpack.compose(diffs)
    assert became(composed) == kind
    assert bits(diffpack.load(BASE, composed)) == bits(states[-1])


@pytest.mark.parametrize(("second", "kind"), [pytest.param(*row, id=what) for what, *row in NEW])
def test_new_tensors_need_no_base(second, kind):
    base = {"t": BASE["t"]}
    states, diffs = chain(base, lambda state: state | {"w": BASE["w"]}, second)
    composed = diffpack.compose(diffs)
    assert became(composed) == kind
    assert bits(diffpack.load(base, composed)) == bits(states[-1])


@pytest.mark.parametrize(("first", "second"), [pytest.param(*row, id=what) for what, *row in NEEDED])
def test_pairs_that_need_the_base(first, second):
    states, diffs = chain(BASE, first, second)
    with pytest.raises(BaseNeededError, match="give the base"):
        diffpack.compose(diffs)
    assert bits(diffpack.load(BASE, diffpack.compose(diffs, base=BASE))) == bits(states[-1])


def test_a_tensor_tied_to_a_new_one_that_changes_then():
    base = {"t": BASE["t"]}
    states = [base, base | {"u": BASE["w"], "w": BASE["w"]}]
    states.append(changed(states[1]))
    composed = diffpack.compose([diffpack.extract(a, b) for a, b in pairwise(states)])
    assert set(composed) == {"u", "w"}
    assert bits(diffpack.load(base, composed)) == bits(states[-1])

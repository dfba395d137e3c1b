"""A diff is applied to its own base alone, and what differs is named."""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import WrongBaseError
from tests.tools.models import model, tune


@pytest.mark.parametrize("verify", [True, False])
def test_a_wrong_base_is_refused_and_its_tensors_named(tmp_path, verify):
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned)
    other = {name: array.copy() for name, array in base.items()}
    other["embed"].reshape(-1).view(np.uint32)[5] ^= 1
    with pytest.raises(WrongBaseError, match="embed") as caught:
        diffpack.apply(other, diff, tmp_path / "out.safetensors", verify=verify)
    assert caught.value.tensors == ("embed",)
    assert caught.value.exit_code == 10
    assert not list(tmp_path.iterdir())


def test_a_base_that_differs_where_the_diff_does_not_touch_it_is_refused(tmp_path):
    base, tuned = model(), tune(model())
    diff = diffpack.extract(base, tuned)
    other = base | {"ids": base["ids"] + 1}
    with pytest.raises(WrongBaseError, match="does not touch"):
        diffpack.apply(other, diff, tmp_path / "out.safetensors")


def test_a_diff_is_not_applied_twice(tmp_path):
    """In memory it is refused; on disk the result is written as it is, and said (test_links.py)."""
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned)
    with pytest.raises(WrongBaseError, match="it is the result of diff in memory already"):
        diffpack.load(tuned, diff)
    assert diffpack.apply(tuned, diff, tmp_path / "out.safetensors").already
    assert diffpack.fingerprint(tmp_path / "out.safetensors") == diffpack.fingerprint(tuned)


@pytest.mark.parametrize("change", ["dtype", "shape", "missing"])
def test_another_dtype_or_shape_is_refused_by_name(change):
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned)
    other = dict(base)
    if change == "dtype":
        other["embed"] = base["embed"].astype(np.float64)
    elif change == "shape":
        other["embed"] = base["embed"].reshape(-1)
    else:
        del other["embed"]
    with pytest.raises(WrongBaseError, match="embed"):
        diffpack.load(other, diff)

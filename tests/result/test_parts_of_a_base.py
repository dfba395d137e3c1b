"""A part of a base in memory takes a diff where it holds all that changes; whatever it cannot be told by is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import WrongBaseError
from tests.tools.models import bits, model, write_safetensors


def test_a_part_is_no_base_where_its_words_are_coded_among_those_it_lacks():
    rng = np.random.default_rng(0)
    base = {name: (rng.standard_normal((256, 256)) / 50).astype(ml_dtypes.bfloat16) for name in "vw"}
    noise = rng.standard_normal((256, 256)).astype(np.float32) * np.float32(2e-5)
    task = {name: (array.astype(np.float32) + noise).astype(array.dtype) for name, array in base.items()}
    diff = diffpack.extract(base, task, profile="smallest", positions="levels")
    assert diff.contexts("w") == diff.contexts("v") != ()
    with pytest.raises(WrongBaseError, match="v is missing, and others are coded together with it"):
        diffpack.load({"w": base["w"]}, diff, partial=True)


def untouched_case() -> tuple[dict[str, Any], dict[str, Any], Any]:
    base = model() | {"buffer": np.arange(3)}
    tuned_arrays = base | {"embed": base["embed"] + 1}
    return base, tuned_arrays, diffpack.extract(base, tuned_arrays)


def test_what_the_diff_does_not_touch_is_not_asked_for_and_that_is_said():
    base, tuned_arrays, diff = untouched_case()
    part = {name: base[name] for name in ("embed", "encoder.0.bias")}
    opened = diffpack.open_checkpoint(part)
    assert bits(diffpack.load(opened, diff)) == bits({name: tuned_arrays[name] for name in part})
    assert "the 1 tensors that change were checked, the others were not" in opened.notes[-1]
    verified = diffpack.verify(diff, part)
    assert (verified.part, verified.result, verified.records) == (True, None, 1)
    assert list(diff.against(part)["embed"].positions) == list(diff["embed"].positions)


def test_a_part_whose_changed_tensor_differs_is_refused_by_name():
    base, _, diff = untouched_case()
    for verify in (True, False):
        with pytest.raises(WrongBaseError, match="these tensors differ: embed") as caught:
            diffpack.load({"embed": base["embed"] + 1}, diff, verify=verify)
        assert caught.value.tensors == ("embed",)
    with pytest.raises(WrongBaseError, match=r"embed is missing \(F32\[100, 16\]\); there is encoder.0.weight"):
        diffpack.load({name: array for name, array in base.items() if name != "embed"}, diff)


def test_as_many_tensors_of_which_an_untouched_one_differs_are_refused():
    base, _, diff = untouched_case()
    with pytest.raises(WrongBaseError, match="only tensors this diff does not touch differ"):
        diffpack.load(base | {"buffer": np.arange(3) + 1}, diff)


def test_files_are_the_whole_base_or_refused(tmp_path: Path):
    base, _, diff = untouched_case()
    path = write_safetensors(tmp_path / "part.safetensors", {name: base[name] for name in ("embed", "ids")})
    with pytest.raises(WrongBaseError, match="it has 2 tensors, not 9"):
        diffpack.load(path, diff)


def test_tensors_made_of_what_has_no_digest_need_the_whole_base():
    base = {"w": np.arange(64.0), "v": np.arange(64.0, 128.0), "buffer": np.arange(3)}
    diff = diffpack.extract(base, base | {"w": base["w"] + 1, "head": base["v"]})
    part = {"w": base["w"], "v": base["v"] * 2}
    with pytest.raises(WrongBaseError, match="head would be made of tensors without a digest"):
        diffpack.load(part, diff)
    assert np.array_equal(diffpack.load(part, diff, verify=False)["head"], part["v"])  # as was asked for
    assert np.array_equal(diffpack.load(base, diff)["head"], base["v"])


def test_a_diff_that_changes_no_tensor_tells_no_part_of_its_base():
    base = {"w": np.arange(64.0), "buffer": np.arange(3)}
    diff = diffpack.extract(base, base | {"new": np.random.default_rng(0).random(9)})
    with pytest.raises(WrongBaseError, match="changes no tensor by which the base could be told"):
        diffpack.load({"w": base["w"]}, diff)


def test_what_may_be_tied_to_a_changed_tensor_is_left_out_of_a_part():
    rng = np.random.default_rng(0)
    base = {"embed": rng.random((20, 8)), "w": rng.random((8, 8)), "buffer": np.arange(3)}
    diff = diffpack.extract(base, base | {"embed": base["embed"] + 1})
    found = diffpack.load({"embed": base["embed"], "w": base["w"], "head": base["embed"].copy()}, diff)
    assert set(found) == {"embed", "w"}
    whole = diffpack.load(
        base | {"head": base["embed"].copy()}, diff
    )  # the fingerprint tells that the head is none of it
    assert set(whole) == set(base)


def test_apply_writes_the_whole_result_or_nothing(tmp_path: Path):
    base, _, diff = untouched_case()
    with pytest.raises(WrongBaseError, match="the output would lack some; `load` takes such a base"):
        diffpack.apply({"embed": base["embed"]}, diff, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())

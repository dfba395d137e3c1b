"""The undo of a diff, applied after it, gives the base back bit for bit; or says that it needs the base."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import BaseNeededError, UsageError, WrongBaseError
from tests.tools.chains import RENAMES, chains, rename_arrays
from tests.tools.models import bits, model, tune, write_safetensors, write_shards

LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large]


def check(base, tuned, undo):
    assert undo.exact
    assert bits(diffpack.load(tuned, undo)) == bits(base)
    diffpack.verify(undo, tuned)


@settings(max_examples=250, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), st.sampled_from(["compact", "portable", "smallest"]))
def test_any_diff(states, profile):
    base, tuned = states
    diff = diffpack.extract(base, tuned, profile=profile, rename=(), allow_removed=True)
    check(base, tuned, diffpack.invert(diff, base=base))
    try:
        undo = diffpack.invert(diff)
    except BaseNeededError:
        return
    check(base, tuned, undo)


@settings(max_examples=100, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), st.sampled_from(RENAMES))
def test_any_diff_with_renamed_tensors(states, rule):
    base, tuned = states[0], rename_arrays(states[1], rule)
    try:
        diff = diffpack.extract(base, tuned, rename=rule, allow_removed=True)
    except UsageError:  # two tensors would get one name
        return
    check(base, tuned, diffpack.invert(diff, base=base))
    with pytest.raises(BaseNeededError, match=r"renamed|base tensors of other names"):  # one may be like another one
        diffpack.invert(diff)


@settings(max_examples=100, deadline=None)
@given(chains(links=1, kinds=("nothing", "change", "most", "new")))
def test_changes_and_new_tensors_are_undone_without_the_base(states):
    base, tuned = states
    diff = diffpack.extract(base, tuned, rename=(), allow_removed=True)
    check(base, tuned, diffpack.invert(diff))
    again = diffpack.invert(diffpack.invert(diff), base=tuned)
    assert bits(diffpack.load(base, again)) == bits(tuned)


def test_a_grown_tensor_is_undone_without_the_base():
    base, tuned = model(), tune(model(), 0.2)
    tuned["embed"] = np.concatenate([tuned["embed"], tuned["embed"][:7]])
    check(base, tuned, diffpack.invert(diffpack.extract(base, tuned)))


def test_a_diff_and_its_undo_compose_to_nothing():
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned)
    nothing = diffpack.compose([diff, diffpack.invert(diff)])
    assert len(nothing) == 0
    assert bits(diffpack.load(base, nothing)) == bits(base)


def test_undo_of_a_chain():
    states = [model(), tune(model(), 0.1, 1), tune(model(), 0.1, 2)]
    diffs = [diffpack.extract(states[0], states[1]), diffpack.extract(states[1], states[2])]
    check(states[0], states[2], diffpack.invert(diffpack.compose(diffs)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("ids"), "removed 1 tensor|removed ids"),
        (lambda t: t.update(embed=t["embed"][:50]), "cut or retyped embed"),
        (lambda t: t.update(embed=t["embed"].astype(np.float16)), "cut or retyped embed"),
        (lambda t: t.update(ids=np.zeros((3, 3), np.uint8), new=np.ones(3)), "may have replaced"),
    ],
)
def test_what_the_base_is_needed_for_is_said(change, reason):
    base, tuned = model(), tune(model())
    change(tuned)
    diff = diffpack.extract(base, tuned)
    with pytest.raises(BaseNeededError, match=reason):
        diffpack.invert(diff)
    check(base, tuned, diffpack.invert(diff, base=base))


def test_lossy_diffs_and_other_bases_are_refused():
    with pytest.raises(UsageError, match="lossy"):
        diffpack.invert(diffpack.extract(model(), tune(model()), values="f16"))
    with pytest.raises(WrongBaseError):
        diffpack.invert(diffpack.extract(model(), tune(model())), base=tune(model()))


@pytest.mark.parametrize("given", [True, False])
def test_the_layout_of_the_base(tmp_path, given):
    base = write_safetensors(tmp_path / "base.safetensors", model(), {"format": "pt"})
    arrays = tune(model())
    same = write_safetensors(tmp_path / "same.safetensors", arrays, {"format": "pt"})
    other = write_safetensors(tmp_path / "other.safetensors", arrays, {"other": "header"})
    for tuned in (same, other):
        undo = diffpack.invert(diffpack.extract(base, tuned), base=base if given else None)
        diffpack.apply(tuned, undo, tmp_path / "out.safetensors", force=True)
        back = (tmp_path / "out.safetensors").read_bytes() == base.read_bytes()
        assert back is (given or tuned is same)
        assert diffpack.fingerprint(tmp_path / "out.safetensors") == diffpack.fingerprint(base)


def test_a_model_folder_comes_back_with_its_side_files(tmp_path):
    arrays = model()
    halves = dict(list(arrays.items())[:4]), dict(list(arrays.items())[4:])
    write_shards(tmp_path / "base", {"a.safetensors": halves[0], "b.safetensors": halves[1]})
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "vocab.txt").write_text("a")
    (tmp_path / "tuned").mkdir()
    write_safetensors(tmp_path / "tuned" / "model.safetensors", tune(arrays))
    (tmp_path / "tuned" / "config.json").write_text('{"labels": 2}')
    (tmp_path / "tuned" / "vocab.txt").write_text("a")
    undo = diffpack.invert(diffpack.extract(tmp_path / "base", tmp_path / "tuned"), base=tmp_path / "base")
    diffpack.apply(tmp_path / "tuned", undo, tmp_path / "out")
    for path in (tmp_path / "base").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_new_tensor_under_the_old_name_of_a_renamed_one_is_no_clash():
    base = {"b": np.ones(1, np.float32), "w": np.zeros(1, np.float32), "x.y.w": np.full(1, 3, np.float32)}
    tuned = base | {"x.w": np.ones((2, 3), np.float32)}
    diff = diffpack.extract(base, tuned, rename=(("x.", ""),))
    check(base, tuned, diffpack.invert(diff, base=base))


def test_the_undo_gives_the_files_of_the_base_their_names(tmp_path):
    for name, arrays in (("base", model()), ("tuned", tune(model()))):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / f"{name}.safetensors", arrays)
    undo = diffpack.invert(diffpack.extract(tmp_path / "base", tmp_path / "tuned"), base=tmp_path / "base")
    diffpack.apply(tmp_path / "tuned", undo, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["base.safetensors"]
    before = (tmp_path / "base" / "base.safetensors").read_bytes()
    assert (tmp_path / "out" / "base.safetensors").read_bytes() == before

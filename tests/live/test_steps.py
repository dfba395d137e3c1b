"""Diffs of tensors in memory are ordinary exact diffs: what both readers make of them is the tensors, bit for bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import diffpack
from diffpack.errors import UnsupportedCheckpointError, UsageError
from diffpack.live import Steps, extract
from diffpack.live.states import moved as live_moved
from diffpack.live.states import state as live_state
from diffpack.live.states import steps as live_steps
from spec import reader, words
from tests.tools.tensors import DTYPES, State, bits, changed, random_state

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def restored(before: State, diff: diffpack.Diff) -> Any:
    """What `load` makes of a base in memory and a diff."""
    return bits(diffpack.load({name: value.cpu() for name, value in before.items()}, diff, framework="torch"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("density", [0.0, 0.01, 0.2, 0.6])
def test_the_diff_gives_the_tensors_back(density: float, device: str):
    before = {name: value.to(device) for name, value in random_state().items()}
    after = changed(before, density)
    with extract(before, after) as diff:
        assert diff.exact
        assert restored(before, diff) == bits(after)
        assert diff.manifest.base.fingerprint == diffpack.fingerprint(before)
        assert diff.manifest.result.fingerprint == diffpack.fingerprint(after)


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_compared_by_its_bits(name: str):
    before: State = {"x": random_state(dtypes=[name])[name]}
    octets = before["x"].clone().reshape(-1).view(torch.uint8)
    octets[5] ^= 0x80
    after = {"x": octets.view(before["x"].dtype).reshape(before["x"].shape)}
    with extract(before, after) as diff:
        assert diff["x"].count == 1
        assert restored(before, diff) == bits(after)


def test_signs_of_zeros_and_nans_are_bits():
    before = {"x": torch.tensor([0.0, float("nan"), 1.0, float("nan")] * 100)}
    after = {"x": before["x"].clone()}
    after["x"][0] = -0.0
    after["x"].view(torch.int32)[1] ^= 1
    with extract(before, after) as diff:
        assert diff["x"].positions.tolist() == [0, 1]
        assert restored(before, diff) == bits(after)
    with extract(before, {"x": before["x"].clone()}) as diff:
        assert len(diff) == 0


def for_reader(state: State) -> dict[str, words.Tensor]:
    """Tensors as the second reader holds them."""
    opened = diffpack.open_checkpoint(state)
    return {
        name: words.Tensor(info.dtype.name, info.shape, opened.words(name).tobytes())
        for name, info in opened.tensors.items()
    }


def test_the_second_reader_reads_it(tmp_path: Path):
    before = random_state()
    after = changed(before, 0.05)
    after |= {"new": torch.randn(5), "head": after["float32"]}
    del after["scalar"]
    extract(before, after, tmp_path / "step.dpk").close()
    diff = reader.read((tmp_path / "step.dpk").read_bytes())
    assert reader.apply(diff, for_reader(before)) == for_reader(after)


def test_same_inputs_give_the_same_bytes(tmp_path: Path):
    before = random_state()
    after = changed(before, 0.05)
    for at, threads in enumerate((1, 4)):
        extract(before, after, tmp_path / f"{at}.dpk", threads=threads, metadata={"step": "7"}).close()
    assert (tmp_path / "0.dpk").read_bytes() == (tmp_path / "1.dpk").read_bytes()
    with diffpack.open(tmp_path / "0.dpk") as diff:
        assert diff.metadata == {"step": "7"}
    with pytest.raises(UsageError, match="exists"):
        extract(before, after, tmp_path / "0.dpk")


def test_the_result_is_that_of_the_librarys_extract():
    before = random_state()
    after = changed(before, 0.05)
    with extract(before, after) as ours, diffpack.extract(before, after) as theirs:
        assert ours.manifest.result == theirs.manifest.result
        assert ours.manifest.base == theirs.manifest.base
        assert set(ours) == set(theirs)
        for name in ours:
            assert np.array_equal(ours[name].positions, theirs[name].positions)
            assert np.array_equal(ours[name].values, theirs[name].values)


def test_new_removed_resized_and_retyped_tensors():
    before = {
        "kept": torch.randn(600), "gone": torch.randn(30), "grown": torch.randn(10, 4), "wide": torch.randn(50),
        "integers": torch.arange(40),
    }  # fmt: skip
    after = {
        "kept": before["kept"], "new": torch.randn(3, 5), "wide": before["wide"].bfloat16(),
        "grown": torch.cat([before["grown"], torch.randn(2, 4)]), "integers": torch.arange(40, dtype=torch.int32),
    }  # fmt: skip
    with extract(before, after) as diff:
        assert {name: record.kind for name, record in diff.items()} == {
            "grown": "resized", "new": "new", "wide": "retyped", "integers": "new",
        }  # fmt: skip
        assert diff.manifest.removed == ("gone",)
        assert restored(before, diff) == bits(after)


def test_most_of_the_base_may_go_only_when_asked_for():
    before = random_state(dtypes=["float32", "float16", "int8"])
    after = {"float32": before["float32"]}
    with pytest.raises(UsageError, match=r"lacks .* of the base's entries"):
        extract(before, after)
    with extract(before, after, allow_removed=True) as diff:
        assert restored(before, diff) == bits(after)


def test_views_and_strides_do_not_matter():
    whole = torch.randn(40, 30)
    before = {"turned": whole.t(), "part": whole[::2, 3:9], "conjugate": torch.randn(8, dtype=torch.complex64).conj()}
    after = {name: value.clone() for name, value in before.items()}
    after["turned"][3, 5] += 1
    after["part"][2, 1] += 1
    after["conjugate"][2] += 1
    spread = torch.empty(30, 80)[:, ::2]
    spread.copy_(after["turned"])
    after["turned"] = spread
    after["expanded"] = torch.randn(1, 5).expand(4, 5)
    with extract(before, after) as diff:
        assert diff["turned"].positions.tolist() == [3 * 40 + 5]
        assert restored(before, diff) == bits(after)


def test_tied_tensors_are_tied_in_the_diff():
    shared = torch.randn(20, 8)
    before = {"embed": shared, "head": shared, "other": torch.randn(500)}
    moved = shared.clone()
    moved[3, 3] += 1
    with extract(before, {"embed": moved, "head": moved, "other": before["other"]}) as diff:
        assert list(diff) == ["embed"]
        assert diff.manifest.aliases == {"head": "embed"}
        assert restored(before, diff)["head"] == bits({"head": moved})["head"]
    with extract(before, {"embed": shared, "head": moved, "other": before["other"]}) as diff:
        assert list(diff) == ["head"]
        assert diff.manifest.aliases == {}
        assert restored(before, diff) == bits({"embed": shared, "head": moved, "other": before["other"]})
    apart = {"embed": shared, "head": shared.clone(), "other": before["other"]}
    with extract(apart, {"embed": moved, "head": moved, "other": before["other"]}) as diff:
        assert diff.manifest.aliases == {"head": "embed"}


def test_modules_and_their_state_are_taken():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight[2, 2] += 1
    with extract(before, model) as one, extract(before, model.state_dict()) as two:
        assert list(one) == list(two) == ["0.weight"]
        assert restored(before, one) == bits(model.state_dict())


def test_what_is_no_plain_tensor_is_named():
    good = {"x": torch.zeros(3)}
    with pytest.raises(UsageError, match=r"x is a ndarray, not a tensor of torch's"):
        extract({"x": np.zeros(3)}, good)  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="tensors are a torch module"):
        extract("folder", good)  # type: ignore[arg-type]
    for value in (torch.zeros(3, device="meta"), torch.zeros(3).to_sparse(), torch.zeros(2, dtype=torch.complex128)):
        with pytest.raises(UnsupportedCheckpointError, match=r"the tensors in memory: x: "):
            extract(good, {"x": value})
    with pytest.raises(UsageError, match="the profile is one of"):
        extract(good, good, profile="smallest")


def test_large_tensors_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_moved, "_BLOCK_WORDS", 100)
    before = {"x": torch.randn(1234)}
    after = {"x": before["x"].clone()}
    after["x"][[0, 99, 100, 555, 1233]] += 1
    with extract(before, after) as diff:
        assert diff["x"].positions.tolist() == [0, 99, 100, 555, 1233]
        assert restored(before, diff) == bits(after)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("on_device", [True, False])
def test_steps_go_on_from_what_was_stored(device: str, on_device: bool, tmp_path: Path):
    state = {name: value.to(device) for name, value in random_state(dtypes=["float32", "bfloat16", "int64"]).items()}
    first = {name: value.clone() for name, value in state.items()}
    steps = Steps(state, on_device=on_device)
    paths = []
    for at in range(3):
        for name, value in changed(state, 0.05, seed=at).items():
            state[name].copy_(value)
        paths.append(tmp_path / f"{at}.dpk")
        with steps.extract(state, paths[-1]) as diff:
            assert diff.manifest.result.fingerprint == steps.fingerprint
            assert diff.manifest.base.fingerprint != steps.fingerprint
    assert steps.count == 3
    with diffpack.compose(paths) as whole:
        assert restored(first, whole) == bits(state)
    with steps.extract(state) as nothing:
        assert len(nothing) == 0


def test_a_step_that_could_not_be_written_changes_nothing(tmp_path: Path):
    state = random_state(dtypes=["float32"])
    first = {name: value.clone() for name, value in state.items()}
    steps = Steps(state)
    state["float32"] += 1
    (tmp_path / "there.dpk").touch()
    before = steps.fingerprint
    with pytest.raises(UsageError, match="exists"):
        steps.extract(state, tmp_path / "there.dpk")
    assert (steps.fingerprint, steps.count) == (before, 0)
    with steps.extract(state) as diff:
        assert restored(first, diff) == bits(state)


def test_steps_follow_ties_and_shapes():
    shared = torch.randn(20, 8)
    states: list[State] = [
        {"embed": shared, "head": shared},
        {"embed": shared + 0, "head": shared + 0},
        {"embed": shared * 2, "head": shared + 0},
        {"embed": torch.randn(22, 8), "head": shared + 0, "new": torch.randn(3)},
    ]
    tied = torch.randn(22, 8)
    states.append({"embed": tied, "head": tied, "new": torch.randn(3)})
    moved = tied.clone()
    moved[0, 0] += 1
    states.append({"embed": tied, "head": moved, "new": states[-1]["new"]})
    steps = Steps(states[0])
    for before, after in pairwise(states):
        with steps.extract(after) as diff:
            assert diff.manifest.base.fingerprint == diffpack.fingerprint(before)
            assert restored(before, diff) == bits(after)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Treat tensors as those of another device; the list gets the bytes that come from there."""
    came: list[int] = []

    def host_words(integers: Tensor, dtype: Any) -> Any:
        came.append(integers.nbytes)
        return words_of(integers.clone(), dtype)

    words_of = live_state.host_words
    for module in (live_state, live_moved, live_steps):
        monkeypatch.setattr(module, "is_here", lambda tensor: False)
    for module in (live_state, live_moved):
        monkeypatch.setattr(module, "host_words", host_words)
    return came


@pytest.mark.parametrize("on_device", [True, False])
def test_from_step_to_step_only_changed_words_come_here(on_device: bool, monkeypatch: pytest.MonkeyPatch):
    before = {"x": torch.randn(1000, 100), "y": torch.randn(5000), "still": torch.randn(3000)}
    now = {name: value.clone() for name, value in before.items()}
    came = elsewhere(monkeypatch)
    steps = Steps(now, on_device=on_device)
    assert sum(came) == sum(value.nbytes for value in now.values())
    for at in range(2):
        was = {name: value.clone() for name, value in now.items()}
        now["x"][at, :50] += 1
        now["y"][at] += 1
        came.clear()
        with steps.extract(now) as diff:
            assert sum(came) == 2 * 4 * 51  # each word before and after
            assert restored(was, diff) == bits(now)


def test_of_what_was_each_byte_comes_here_once(monkeypatch: pytest.MonkeyPatch):
    before = {"x": torch.randn(1000, 100), "tied": torch.randn(5000), "still": torch.randn(3000)}
    before["again"] = before["tied"]
    after = {name: value.clone() for name, value in before.items()}
    after["x"][3] += 1
    after["again"] = after["tied"]
    came = elsewhere(monkeypatch)
    with extract(before, after) as diff:
        assert sum(came) == 4 * (100_000 + 5000 + 3000) + 2 * 4 * 100  # and what changed, before and after
        assert restored(before, diff) == bits(after)


def test_what_is_trained_afterwards_does_not_reach_what_was_seen():
    state = {"x": torch.zeros(500)}
    steps = Steps(state)
    state["x"][3] = 1
    with steps.extract(state) as diff:
        assert diff["x"].positions.tolist() == [3]
    state["x"][4] = 1
    with steps.extract(state) as diff:
        assert diff["x"].positions.tolist() == [4]

"""A diff written into tensors where they lie: all of it, bit for bit, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import diffpack
from diffpack.errors import (
    CorruptFileError,
    ResultMismatchError,
    UnsupportedCheckpointError,
    UsageError,
    WrongBaseError,
)
from diffpack.live import apply_, extract, from_pretrained
from diffpack.live.states import in_place
from diffpack.live.states import state as live_state
from tests.tools.families import make_base, make_task
from tests.tools.live_models import loaded, make, tuned
from tests.tools.tensors import DTYPES, State, bits, changed, random_state

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


def copies(state: State) -> State:
    return {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("density", [0.01, 0.6])
def test_tensors_become_the_result_where_they_lie(density: float, known: bool, device: str):
    state = {name: value.to(device) for name, value in random_state().items()}
    after = changed(state, density)
    with extract(state, after) as diff:
        places = {name: value.data_ptr() for name, value in state.items()}
        done = apply_(state, diff, base_fingerprint=diff.manifest.base.fingerprint if known else None)
        assert bits(state) == bits(after)
        assert {name: value.data_ptr() for name, value in state.items()} == places
        assert set(done.tensors) == set(diff)
        assert done.fingerprint == diffpack.fingerprint(after)


@pytest.mark.parametrize("options", [
    {}, {"profile": "smallest"}, {"positions": "levels"}, {"positions": "gaps"}, {"positions": "all"},
    {"values": "int8", "density": 0.1}, {"values": "f16"}, {"values": "lowrank", "rank": 2}, {"budget": "5%"},
    {"rule": "largest", "density": 0.1}, {"rule": "random 3", "density": 0.1, "values": "bf16"},
])  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_every_kind_of_diff(options: dict[str, Any], known: bool):
    torch.manual_seed(0)
    base = {"w": torch.randn(96, 80), "b": torch.randn(96), "h": torch.randn(64, 64).bfloat16()}
    after = {
        name: value + 0.01 * torch.randn_like(value) * (torch.rand(value.shape) < 0.3) for name, value in base.items()
    }
    with diffpack.extract(base, after, **options) as diff:
        stored = bits(diffpack.load(copies(base), diff, framework="torch"))
        apply_(base, diff, base_fingerprint=diff.manifest.base.fingerprint if known else None)
        assert bits(base) == stored


def test_of_a_known_base_only_changed_words_travel(monkeypatch: pytest.MonkeyPatch):
    state = {"x": torch.randn(1000, 100), "still": torch.randn(3000)}
    after = copies(state)
    after["x"][3, :50] += 1
    with extract(state, after) as diff:
        came, went = [], []
        host_words, integers = live_state.host_words, in_place.TensorWords.integers
        come = lambda found, dtype: came.append(found) or host_words(found, dtype)  # noqa: E731 - as short as it is
        go = lambda self, words: went.append(words) or integers(self, words)  # noqa: E731
        monkeypatch.setattr(live_state, "is_here", lambda tensor: False)
        monkeypatch.setattr(live_state, "host_words", come)
        monkeypatch.setattr(in_place.TensorWords, "integers", go)
        apply_(state, diff, base_fingerprint=diff.manifest.base.fingerprint)
    assert sum(words.nbytes for words in came) == sum(words.nbytes for words in went) == 4 * 50
    assert bits(state) == bits(after)


def test_a_module_keeps_its_parameters():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = {name: value + 1 if value.ndim else value.clone() for name, value in before.items()}
    parameters = dict(model.named_parameters())
    with extract(before, after) as diff, diffpack.invert(diff, base=before) as back:
        apply_(model, diff)
        assert bits(model.state_dict()) == bits(after)
        assert all(value is parameters[name] for name, value in model.named_parameters())
        apply_(model.state_dict(), back)
        assert bits(model.state_dict()) == bits(before)


@pytest.mark.parametrize("kind", ["BertModel", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_models_of_transformers_under_their_own_names(kind: str, tmp_path: Path):
    base = make(kind, tmp_path / "base")
    result = tuned(kind, base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = loaded(kind, base)
    apply_(model, tmp_path / "task.dpk")
    assert bits(model.state_dict()) == bits(result.state_dict())


def test_a_body_inside_a_model_with_a_head_of_its_own(tmp_path: Path):
    base = make("BertModel", tmp_path / "base")
    result = tuned("BertModel", base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = loaded("BertForSequenceClassification", base)
    done = apply_(model, tmp_path / "task.dpk")
    assert all(name.startswith("bert.") for name in done.tensors)
    assert bits(model.bert.state_dict()) == bits(result.state_dict())


def test_new_tensors_go_where_there_is_a_place_for_them(tmp_path: Path):
    base = make_base("bert", tmp_path / "base")
    task = make_task("bert", base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = loaded("BertForSequenceClassification", base, num_labels=3)
    apply_(model, tmp_path / "task.dpk")
    assert bits(model.state_dict()) == bits(task.state_dict())
    other = loaded("BertForSequenceClassification", base, num_labels=5)
    before = bits(other.state_dict())
    with pytest.raises(UsageError, match=r"has no place for classifier\.\w+ \(F32\[3.*there it is F32\[5"):
        apply_(other, tmp_path / "task.dpk")
    with pytest.raises(UsageError, match="has no place for classifier"):
        apply_(loaded("BertModel", base), tmp_path / "task.dpk")
    assert bits(other.state_dict()) == before


def test_resized_and_retyped_tensors_are_refused_and_removed_ones_named():
    base = {"x": torch.randn(60, 4), "y": torch.randn(40), "gone": torch.randn(3)}
    for after in ({**base, "x": torch.cat([base["x"], base["x"]])}, {**base, "y": base["y"].bfloat16()}):
        with extract(base, after) as diff, pytest.raises(UsageError, match="has no place for"):
            apply_(base, diff)
    after = {"x": base["x"] + 1, "y": base["y"]}
    with extract(base, after) as diff:
        done = apply_(base, diff)
        assert done.left == ("gone",)
        assert bits({name: base[name] for name in after}) == bits(after)


def test_another_base_is_refused_and_nothing_written():
    base = random_state(dtypes=["float32", "bfloat16", "int8"])
    after = changed(base, 0.05)
    with extract(base, after) as diff:
        wrong = copies(base)
        wrong["bfloat16"].view(torch.int16)[3, 3] ^= 1
        before = bits(wrong)
        with pytest.raises(WrongBaseError, match="these tensors differ: bfloat16") as error:
            apply_(wrong, diff)
        assert error.value.tensors == ("bfloat16",)
        with pytest.raises(WrongBaseError, match=r"fingerprint expected .*, given 0000"):
            apply_(base, diff, base_fingerprint="0" * 64)
        with pytest.raises(WrongBaseError, match="is BF16"):
            apply_({**wrong, "float32": wrong["float32"].bfloat16()}, diff)
        assert bits(wrong) == before
        apply_(base, diff)
        once = bits(base)
        with pytest.raises(WrongBaseError, match="not the base of"):
            apply_(base, diff)
        assert bits(base) == once == bits(after)


def test_a_base_coded_against_is_told_from_a_damaged_file():
    torch.manual_seed(0)
    base = {"w": torch.randn(300, 300)}
    after = {"w": base["w"] + 0.001 * torch.randn(300, 300)}
    with diffpack.extract(base, after, profile="smallest") as diff:
        assert diff.may_need_base
        with pytest.raises(WrongBaseError, match="these tensors differ: w"):
            apply_({"w": torch.randn(300, 300)}, diff)


def test_a_damaged_diff_writes_nothing(tmp_path: Path):
    base = random_state(dtypes=["float32", "int8"])
    extract(base, changed(base, 0.05), tmp_path / "task.dpk").close()
    data = bytearray((tmp_path / "task.dpk").read_bytes())
    data[20] ^= 1
    before = bits(base)
    with pytest.raises(CorruptFileError):
        apply_(base, bytes(data))
    assert bits(base) == before


def test_another_result_than_recorded_writes_nothing(monkeypatch: pytest.MonkeyPatch):
    base = random_state(dtypes=["float32", "int8"])
    with extract(base, changed(base, 0.05)) as diff:
        digests = diff.digests
        monkeypatch.setattr(diff, "digests", lambda name: (digests(name)[0], b"0" * 16))
        before = bits(base)
        with pytest.raises(ResultMismatchError, match=r"other bits than recorded: float32, int8"):
            apply_(base, diff)
        assert bits(base) == before


def test_a_failure_half_way_puts_back_what_was_written(monkeypatch: pytest.MonkeyPatch):
    base = random_state()
    after = changed(base, 0.05)
    before = bits(base)
    scatter = in_place.TensorWords.scatter
    written = 0

    def failing(self: Any, index: Any, words: Any) -> None:
        nonlocal written
        written += 1
        scatter(self, index, words)
        if written == 7:
            raise MemoryError("of the device")

    monkeypatch.setattr(in_place.TensorWords, "scatter", failing)
    with extract(base, after) as diff, pytest.raises(MemoryError):
        apply_(base, diff)
    assert written == 14
    assert bits(base) == before


def test_tensors_of_any_strides_are_written():
    whole = torch.randn(40, 30)
    base = {"turned": whole.t(), "spread": torch.randn(20, 60)[:, ::3]}
    after = {name: value.clone() for name, value in base.items()}
    after["turned"][[1, 7], [3, 5]] += 1
    after["spread"][0, 0] += 1
    with extract(base, after) as diff:
        apply_(base, diff)
    assert bits(base) == bits(after)


def test_memory_that_two_tensors_share_in_part_is_not_written():
    whole = torch.randn(100)
    base = {"whole": whole, "part": whole[10:20], "other": torch.randn(50)}
    after = copies(base)
    after["other"] += 1
    with extract(base, after) as diff:
        apply_(base, diff)
    after["whole"][3] += 1
    with extract(base, after) as diff, pytest.raises(UsageError, match="whole and part share a part of their memory"):
        apply_(base, diff)
    flat = {"x": torch.randn(1, 5).expand(4, 5)}
    with extract(flat, {"x": flat["x"] + 1}) as diff, pytest.raises(UnsupportedCheckpointError, match="share memory"):
        apply_(flat, diff)


def test_memory_that_models_share_is_not_written(tmp_path: Path):
    base = make_base("bert", tmp_path / "base")
    task = make_task("bert", base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    state = task.state_dict()
    with extract(state, {name: value + 1 for name, value in state.items()}) as diff:
        model = from_pretrained(base, tmp_path / "task.dpk")
        before = bits(model.state_dict())
        with pytest.raises(UsageError, match=r"share: load the model with from_pretrained\(\.\.\., share=False\)"):
            apply_(model, diff)
        assert bits(model.state_dict()) == before
        apply_(from_pretrained(base, tmp_path / "task.dpk", share=False), diff)


def test_tied_tensors_stay_tied_or_are_refused():
    shared = torch.randn(20, 8)
    base = {"embed": shared, "head": shared}
    other = torch.randn(20, 8)
    with extract(base, {"embed": other, "head": other}) as diff:
        tied = torch.clone(shared)
        state = {"embed": tied, "head": tied}
        apply_(state, diff)
        assert torch.equal(tied, other)
        apart = copies(base)
        apply_(apart, diff)
        assert bits(apart) == bits(state)
    with extract(base, {"embed": shared, "head": other}) as diff:
        apart = copies(base)
        apply_(apart, diff)
        assert bits(apart) == bits({"embed": shared, "head": other})
        with pytest.raises(UsageError, match=r"ties embed, head, which the result of .* has apart: untie them first"):
            apply_(base, diff)
    both = {"embed": other, "head": torch.randn(20, 8)}
    with extract(base, both) as diff, pytest.raises(UsageError, match="untie them first"):
        apply_(base, diff)


def test_tensors_made_of_others_need_the_whole_base():
    torch.manual_seed(0)
    base = {"a": torch.randn(40, 30), "b": torch.randn(40, 30), "c": torch.randn(500)}
    after = {"a": base["a"], "b": base["a"].clone(), "c": base["c"]}
    with extract(base, after) as plain, diffpack.extract(base, after) as diff:
        assert plain["b"].kind == "changed"
        assert diff.manifest.aliases or diff.manifest.copies
        assert "b" not in diff
        state = copies(base)
        apply_(state, diff)
        assert bits(state) == bits(after)
        strange = {**copies(base), "c": torch.randn(500)}
        with pytest.raises(WrongBaseError, match="cannot be told to be the base of"):
            apply_(strange, diff)


@pytest.mark.parametrize("known", [True, False])
def test_tensors_may_change_places(known: bool):
    torch.manual_seed(0)
    base = {name: torch.randn(40, 30) for name in "abc"}
    after = {"a": base["b"].clone(), "b": base["c"].clone(), "c": base["a"].clone()}
    with diffpack.extract(base, after) as diff:
        assert diff.manifest.copies
        apply_(base, diff, base_fingerprint=diff.manifest.base.fingerprint if known else None)
        assert bits(base) == bits(after)


def test_what_is_frozen_by_inference_mode_is_written():
    with torch.inference_mode():
        state = {"x": torch.randn(300)}
    after = {"x": state["x"].clone()}
    after["x"][7] += 1
    with extract(state, after) as diff:
        apply_(state, diff)
    assert bits(state) == bits(after)


def test_autograd_sees_that_a_parameter_was_written():
    model = nn.Linear(4, 4)
    weight = model.weight
    with extract(model, {name: value + 1 for name, value in model.state_dict().items()}) as diff:
        loss = (weight * weight).sum()
        apply_(model, diff)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_written(name: str):
    state = {"x": random_state(dtypes=[name])[name]}
    after = changed(state, 0.02)
    with extract(state, after) as diff:
        apply_(state, diff)
    assert bits(state) == bits(after)

"""A model in memory is a base: what transformers drops, adds, renames and ties when it loads a file is no obstacle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.errors import DiffpackError, UsageError, WrongBaseError
from tests.tools.models import bits, model, tune, write_safetensors

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.tools.live_models import loaded, make, tuned  # noqa: E402 - needs torch

KINDS: dict[str, Callable[[Any], Any]] = {
    "module": lambda module: module,
    "state dict": lambda module: module.state_dict(),
    "copied tensors": lambda module: {name: value.clone() for name, value in module.state_dict().items()},
    "arrays": lambda module: {name: value.numpy().copy() for name, value in module.state_dict().items()},
}
POSITION_IDS = {"embeddings.position_ids": torch.arange(32)[None]}
WITH_BERT = {f"bert.{name}": value for name, value in POSITION_IDS.items()}


@pytest.fixture(params=KINDS)
def as_base(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return KINDS[request.param]


def check(live: Any, base: Any, diff: Any, expected: dict[str, Any]) -> None:
    """Load a diff onto a model as its users do, and compare the model with what it should have become."""
    weights = diffpack.load(base, diff, framework="torch")
    changed = copy.deepcopy(live)
    changed.load_state_dict(weights, strict=False)
    state = changed.state_dict()
    assert expected.keys() <= state.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
    assert any(not torch.equal(value, live.state_dict()[name]) for name, value in state.items())


CASES = {
    "a body without its buffer": ("BertModel", POSITION_IDS, "BertModel", "BertModel", ""),
    "a head on the body": ("BertModel", POSITION_IDS, "BertModel", "BertForSequenceClassification", "bert."),
    "a task with a head, onto a model with one": (
        "BertModel", POSITION_IDS, "BertForSequenceClassification", "BertForSequenceClassification", "",
    ),
    "a body out of a model with a head": ("BertForMaskedLM", WITH_BERT, "BertForMaskedLM", "BertForMaskedLM", ""),
    "tied output": ("LlamaForCausalLM", {}, "LlamaForCausalLM", "LlamaForCausalLM", ""),
    "tied output, with a buffer": (
        "LlamaForCausalLM", {"model.rotary_emb.inv_freq": torch.ones(2)}, "LlamaForCausalLM", "LlamaForCausalLM", "",
    ),
    "the body of tied output": ("LlamaForCausalLM", {}, "LlamaForCausalLM", "LlamaModel", "-model."),
    "another tied output": ("GPT2LMHeadModel", {}, "GPT2LMHeadModel", "GPT2LMHeadModel", ""),
    "the body of another tied output": ("GPT2LMHeadModel", {}, "GPT2LMHeadModel", "GPT2Model", "-transformer."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_diff_of_files_goes_onto_the_model_that_was_loaded_from_them(case: str, as_base, tmp_path: Path):
    kind, extra, task, live_kind, prefix = CASES[case]
    base = make(kind, tmp_path / "base", extra)
    task_model = tuned(task, base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    live = loaded(live_kind, base)
    expected = {
        name.removeprefix(prefix[1:]) if prefix.startswith("-") else prefix + name: value
        for name, value in task_model.state_dict().items()
    }
    expected = {name: value for name, value in expected.items() if name in live.state_dict()}
    check(live, as_base(live), diff, expected)


def test_a_task_with_a_head_goes_onto_the_body_under_the_bodys_names(as_base, tmp_path: Path):
    base = make("BertModel", tmp_path / "base", POSITION_IDS)
    task = tuned("BertForSequenceClassification", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    assert diff.manifest.rename == (("", "bert."),)
    live = loaded("BertModel", base)
    check(live, as_base(live), diff, task.bert.state_dict())
    weights = diffpack.load(as_base(live), diff)
    assert set(weights) == {*live.state_dict(), "classifier.weight", "classifier.bias"}
    assert set(diffpack.load(as_base(live), diff, names="result")) == set(task.state_dict())


def test_a_wrapper_around_the_model_is_no_obstacle(tmp_path: Path):
    base = make("BertModel", tmp_path / "base", POSITION_IDS)
    task = tuned("BertForSequenceClassification", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    live = torch.nn.DataParallel(loaded("BertForSequenceClassification", base))
    check(live, live, diff, {f"module.{name}": value for name, value in task.state_dict().items()})


def test_the_content_tells_which_of_two_places_is_meant(tmp_path: Path):
    base = make("BertModel", tmp_path / "base")
    task = tuned("BertModel", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    other = loaded("BertModel", make("BertModel", tmp_path / "other"))
    torch.nn.init.normal_(other.embeddings.word_embeddings.weight)
    both = torch.nn.ModuleDict({"a": other, "b": loaded("BertModel", base)})
    weights = diffpack.load(both, diff, framework="torch")
    assert all(torch.equal(weights[f"b.{name}"], value) for name, value in task.state_dict().items())
    assert all(
        torch.equal(weights[f"a.{name}"], value) for name, value in other.state_dict().items() if f"a.{name}" in weights
    )


def test_names_that_changed_within_are_found_by_content():
    base = {
        "a.gamma": np.arange(5.0),
        "a.beta": -np.arange(5.0),
        "b.w": np.ones((2, 2), np.float32),
        "ids": np.arange(9),
    }
    diff = diffpack.extract(base, {name: array + 1 for name, array in base.items()})
    live = {"x.a.weight": base["a.gamma"], "x.a.bias": base["a.beta"], "x.b.w": base["b.w"], "x.ids": base["ids"]}
    found = diffpack.load(live, diff)
    assert bits(found) == bits({name: array + 1 for name, array in live.items()})


def test_a_tied_tensor_gets_what_its_other_name_gets(tmp_path: Path):
    base = make("LlamaForCausalLM", tmp_path / "base", {"model.rotary_emb.inv_freq": torch.ones(2)})
    tuned("LlamaForCausalLM", base, tmp_path / "tuned")
    live = loaded("LlamaForCausalLM", base)
    weights = diffpack.load(live, diffpack.extract(base, tmp_path / "tuned"), framework="torch")
    assert weights["lm_head.weight"] is weights["model.embed_tokens.weight"]
    assert not torch.equal(weights["lm_head.weight"], live.lm_head.weight)


def test_a_whole_model_is_checked_by_its_fingerprint_under_any_prefix(tmp_path: Path):
    base = make("BertModel", tmp_path / "base")
    tuned("BertModel", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    live = loaded("BertModel", base)
    live.pooler.dense.bias.data[0] += 1
    small = diffpack.extract(
        base, diffpack.load(base, diff) | {"pooler.dense.bias": diffpack.load(base, diff)["pooler.dense.bias"]}
    )
    with pytest.raises(WrongBaseError, match="pooler"):
        diffpack.load(live, small)
    headed = loaded("BertForSequenceClassification", base)
    verified = diffpack.verify(diff, loaded("BertModel", base))
    assert (verified.part, verified.result) == (False, diff.manifest.result.fingerprint)
    assert diffpack.verify(diff, headed).part  # of tensors it has more, nothing tells whether they are the base's


def test_a_body_of_a_model_with_a_tuned_head_takes_its_part_if_told_to(as_base, tmp_path: Path):
    base = make("BertForMaskedLM", tmp_path / "base", WITH_BERT)
    task = tuned("BertForMaskedLM", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    live = loaded("BertModel", base)
    with pytest.raises(WrongBaseError, match=r"cls\.predictions\.bias is missing .*partial=True"):
        diffpack.load(as_base(live), diff)
    opened = diffpack.open_checkpoint(as_base(live))
    weights = diffpack.load(opened, diff, framework="torch", partial=True)
    assert opened.notes[-1].endswith("cls.predictions.transform.dense.weight")
    expected = task.bert.state_dict()
    assert set(weights) == set(live.state_dict())
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    live.embeddings.LayerNorm.bias.data[0] += 1
    with pytest.raises(WrongBaseError, match=r"these tensors differ: bert\.embeddings\.LayerNorm\.bias"):
        diffpack.load(as_base(live), diff, partial=True)
    with pytest.raises(WrongBaseError, match="is missing"):
        diffpack.load(loaded("GPT2Model", make("GPT2Model", tmp_path / "other")), diff, partial=True)


def test_apply_writes_the_result_on_a_model_in_memory(tmp_path: Path):
    folder = make("LlamaForCausalLM", tmp_path / "base")
    tuned("LlamaForCausalLM", folder, tmp_path / "tuned")
    task = diffpack.extract(folder, tmp_path / "tuned")
    done = diffpack.apply(loaded("LlamaForCausalLM", folder), task, tmp_path / "out.safetensors")
    assert done.fingerprint == diffpack.fingerprint(tmp_path / "tuned")


def test_models_in_memory_are_stored_as_their_files_are(tmp_path: Path):
    base = make("BertModel", tmp_path / "base")
    task = tuned("BertModel", base, tmp_path / "tuned")
    live = loaded("BertModel", base)
    assert diffpack.fingerprint(live) == diffpack.fingerprint(live.state_dict()) == diffpack.fingerprint(base)
    of_files = diffpack.extract(base, tmp_path / "tuned")
    for diff in (
        diffpack.extract(live, task),
        diffpack.extract(base, task),
        diffpack.extract(live, tmp_path / "tuned"),
    ):
        assert diff.manifest.base == of_files.manifest.base
        assert diff.manifest.result == of_files.manifest.result
        assert bits(diffpack.load(base, diff)) == bits(diffpack.load(base, of_files))


def test_a_base_that_has_the_results_names_already_is_taken(tmp_path: Path):
    base = model()
    renamed = {f"bert.{name}": array for name, array in base.items()}
    task = tune(renamed, 0.3)
    diff = diffpack.extract(base, task)
    assert diff.manifest.rename == (("", "bert."),)
    assert bits(diffpack.load(renamed, diff)) == bits(task)
    path = write_safetensors(tmp_path / "renamed.safetensors", renamed)
    done = diffpack.apply(path, diff, tmp_path / "out.safetensors")
    assert done.fingerprint == diff.manifest.result.fingerprint
    renamed["bert.ids"] = renamed["bert.ids"] + 1
    with pytest.raises(WrongBaseError, match="does not touch"):
        diffpack.load(write_safetensors(tmp_path / "other.safetensors", renamed), diff)


def test_operations_that_need_the_bases_own_names_say_so():
    base = model()
    renamed = {f"bert.{name}": array for name, array in base.items()}
    diff = diffpack.extract(base, tune(renamed, 0.3))
    message = r"its tensors have other names than the base's: bert\.e[a-z0-9.]+ is there e"
    for work in (diffpack.stats, lambda diff, base: diffpack.invert(diff, base=base)):
        with pytest.raises(WrongBaseError, match=message):
            work(diff, renamed)
        with pytest.raises(WrongBaseError, match=r"found [0-9a-f]{64}\)$"):
            work(diff, base | {"ids": base["ids"] + 1})


def test_what_is_missing_is_named_as_it_was_looked_for():
    base = model()
    task = tune({f"bert.{name}": array for name, array in base.items()}, 0.3)
    diff = diffpack.extract(base, task)
    other = {name: array for name, array in base.items() if name != "embed"}
    with pytest.raises(WrongBaseError, match=r"bert\.embed is missing \(F32\[100, 16\]\), and so is embed; there is"):
        diffpack.load(other, diff)
    other["embed"] = base["embed"].astype(np.float64)
    with pytest.raises(WrongBaseError, match=r"bert\.embed is F64\[100, 16\], not F32.* \(there it is embed\)"):
        diffpack.load(other, diff)


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification"])
def test_another_precision_is_refused_with_what_to_do(kind: str, tmp_path: Path):
    base = make("BertModel", tmp_path / "base", POSITION_IDS)
    tuned("BertModel", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    live = loaded(kind, base, dtype=torch.bfloat16)
    with pytest.raises(WrongBaseError, match=r"is BF16.*not F32.*another precision.*dtype=torch\.float32"):
        diffpack.load(live, diff)


def test_another_model_is_refused(tmp_path: Path):
    base = make("BertModel", tmp_path / "base", POSITION_IDS)
    task = tuned("BertModel", base, tmp_path / "tuned")
    diff = diffpack.extract(base, tmp_path / "tuned")
    with pytest.raises(WrongBaseError, match="these tensors differ"):
        diffpack.load(task, diff)  # applied twice
    with pytest.raises(WrongBaseError, match="is missing"):
        diffpack.load(loaded("GPT2Model", make("GPT2Model", tmp_path / "other")), diff)


def test_names_are_the_bases_or_the_results():
    base = model()
    diff = diffpack.extract(base, base | {"embed": base["embed"] + 1})
    with pytest.raises(UsageError, match="base or of the result"):
        diffpack.load(base, diff, names="mine")  # type: ignore[arg-type] - a mistake
    with pytest.raises(DiffpackError, match="a checkpoint is a path, a torch module"):
        diffpack.load(7, diff)  # type: ignore[arg-type] - a mistake


@pytest.mark.real
def test_the_real_fine_tune_goes_onto_the_real_model(real_pair: tuple[Path, Path]):
    base, fine_tuned = real_pair
    diff = diffpack.extract(base, fine_tuned)
    live, task = loaded("AutoModel", base), loaded("AutoModel", fine_tuned)
    assert set(diffpack.open_checkpoint(base).tensors) - set(live.state_dict()) == set(POSITION_IDS)
    for given in (live, live.state_dict()):
        check(live, given, diff, task.state_dict())
    assert diffpack.verify(diff, live).part

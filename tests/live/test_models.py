"""transformers' models as they are: names with a prefix, heads of their own, buffers left out, ties, half precision."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import diffpack  # noqa: E402
from diffpack.errors import UnsupportedCheckpointError, WrongBaseError  # noqa: E402
from diffpack.live import TaskSwitcher  # noqa: E402
from tests.tools import live_models  # noqa: E402
from tests.tools.live_tasks import bits, same  # noqa: E402

PAIRS = [
    ("BertModel", "BertForSequenceClassification"),
    ("BertForMaskedLM", "BertModel"),
    ("BertForMaskedLM", "BertForMaskedLM"),
    ("GPT2LMHeadModel", "GPT2LMHeadModel"),
    ("GPT2Model", "GPT2LMHeadModel"),
    ("LlamaForCausalLM", "LlamaForCausalLM"),
    ("LlamaForCausalLM", "LlamaModel"),
]


@pytest.mark.parametrize(("stored", "running"), PAIRS)
def test_a_task_of_one_class_is_switched_in_a_model_of_another(stored: str, running: str, tmp_path: Path):
    base = live_models.make(stored, tmp_path / "base")
    tuned = live_models.tuned(stored, base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = live_models.loaded(running, base).eval()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    assert switcher.version.fingerprint == diffpack.fingerprint(base)
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert switcher.verify()
    body = _body(tuned)
    assert same(_body(model), {name: value for name, value in bits(body).items() if name in _body(model)})
    switcher.use(None)
    assert same(model.state_dict(), before)


def _body(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model's body, without prefix."""
    prefix = model.base_model_prefix + "."
    state = model.state_dict()
    inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return inner or dict(state)


def test_heads_of_a_classifier_are_switched_with_its_body(tmp_path: Path):
    base = live_models.make("BertModel", tmp_path / "base")
    answers = []
    tokens = torch.tensor([[1, 5, 9, 2]])
    model = live_models.loaded("BertForSequenceClassification", base).eval()
    switcher = TaskSwitcher(model, base)
    for at in range(2):
        folder = tmp_path / f"tuned{at}"
        tuned = live_models.scatter(live_models.loaded("BertForSequenceClassification", base), at, 0.3).eval()
        with live_models.quiet():
            tuned.save_pretrained(folder)
        diffpack.extract(base, folder, tmp_path / f"task{at}.dpk")
        switcher.add(f"task{at}", tmp_path / f"task{at}.dpk")
        with torch.no_grad():
            answers.append(tuned(tokens).logits)
    for at in (0, 1, 0):
        with switcher.task(f"task{at}"), torch.no_grad():
            assert torch.equal(model(tokens).logits, answers[at])
        assert switcher.tensors(f"task{at}") == {}


def test_a_model_in_half_precision_is_refused_or_cast(tmp_path: Path):
    base = live_models.make("BertModel", tmp_path / "base")
    live_models.tuned("BertModel", base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = live_models.loaded("BertModel", base, dtype=torch.bfloat16)
    with pytest.raises(WrongBaseError, match=r"BF16.*load it in the base's dtype, or give cast=True"):
        TaskSwitcher(model, base)
    switcher = TaskSwitcher(model, base, cast=True)
    before = bits(model.state_dict())
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    rounded = live_models.loaded("BertModel", tmp_path / "tuned", dtype=torch.bfloat16)
    assert same(model.state_dict(), bits(rounded.state_dict()))
    switcher.use(None)
    assert same(model.state_dict(), before)


def test_a_model_whose_weights_are_elsewhere_is_refused_by_name(tmp_path: Path):
    base = live_models.make("BertModel", tmp_path / "base")
    model = live_models.loaded("BertModel", base)
    model.encoder.layer[1].to("meta")
    with pytest.raises(UnsupportedCheckpointError, match=r"encoder\.layer\.1\..*on the meta device"):
        TaskSwitcher(model, base)


@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="no CUDA device")
def test_a_model_over_several_devices_is_switched(tmp_path: Path):
    base = live_models.make("BertModel", tmp_path / "base")
    tuned = live_models.tuned("BertModel", base, tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = live_models.loaded("BertModel", base)
    model.encoder.layer[1].to("cuda")
    switcher = TaskSwitcher(model, base)
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert same(model.state_dict(), bits(tuned.state_dict()))

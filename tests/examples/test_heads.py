"""A task's head, of its own size or the base's, stands behind the one body as it does in the task's own model."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("transformers")

import torch
import transformers

import diffpack
from tests.tools.example_runs import FOLDER
from tests.tools.live_models import quiet, scatter

SMALL: dict[str, dict[str, Any]] = {
    "Bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "Roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
}
TEXT = "good word1 word7"


@pytest.fixture
def classifiers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return pytest.importorskip("classifiers")


def make_base(kind: str, head: bool, tokenizer: Path, folder: Path) -> Path:
    """Save a tiny model of random weights, with a head of three labels or without."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=34, pad_token_id=0, initializer_range=0.2, num_labels=3, **SMALL[kind]
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification" if head else f"{kind}Model")
    with quiet():
        torch.manual_seed(0)
        model(config).save_pretrained(folder)
    for path in tokenizer.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def tuned(base: Path, labels: list[str] | None, body: bool = True) -> Any:
    """A fine-tune of other labels (None: with the base's head as it is), in memory."""
    options = {} if labels is None else {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": {}}
    with quiet():
        torch.manual_seed(1)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            base, ignore_mismatched_sizes=True, **options
        )
    scatter(model.base_model, 2, 0.2 if body else 0.0)
    return model.eval()


def expected(model: Any, base: Path) -> list[float]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        logits = model(**tokenizer(TEXT, return_tensors="pt")).logits
    return logits.softmax(-1)[0].tolist()


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", SMALL)
def test_every_head_says_what_it_says_in_its_own_model(
    kind: str, head: bool, classifiers: ModuleType, material: tuple[Path, Path, Path], tmp_path: Path
):
    base = make_base(kind, head, material[0], tmp_path / "base")
    models = {"two": tuned(base, ["no", "yes"]), "five": tuned(base, list("abcde"))}
    if head:
        models["kept"] = tuned(base, None)
    (tmp_path / "tasks").mkdir()
    for name, model in models.items():
        with quiet():
            model.save_pretrained(tmp_path / name)
        diffpack.extract(base, tmp_path / name, tmp_path / "tasks" / f"{name}.dpk", files="model")
    with quiet():
        service = classifiers.Classifiers(base, tmp_path / "tasks", 1 << 20, 16)
        for name in [*models, *models]:
            answer = service.switch(classifiers.Question(task=name, text=TEXT))
            assert list(answer.scores) == list(models[name].config.id2label.values())
            assert list(answer.scores.values()) == pytest.approx(expected(models[name], base), abs=1e-5)
        answer = service.switch(classifiers.Question(text=TEXT))
    if head:
        assert list(answer.scores.values()) == pytest.approx(expected(tuned(base, None, body=False), base), abs=1e-5)
    else:
        assert (answer.label, len(answer.embedding)) == (None, 16)


def test_a_task_whose_tensors_have_no_place_is_refused(
    classifiers: ModuleType, material: tuple[Path, Path, Path], tmp_path: Path
):
    base = make_base("Bert", False, material[0], tmp_path / "base")
    model = tuned(base, ["no", "yes"])
    state = {**model.state_dict(), "bert.adapter.weight": torch.ones(2)}
    with quiet():
        model.save_pretrained(tmp_path / "wide", state_dict=state)
    (tmp_path / "tasks").mkdir()
    diffpack.extract(base, tmp_path / "wide", tmp_path / "tasks" / "wide.dpk", files="model")
    service = classifiers.Classifiers(base, tmp_path / "tasks", 1 << 20, 16)
    with pytest.raises(diffpack.DiffpackError, match=r"(?s)wide\.dpk: its tensors make no classifier: .*adapter"):
        service.switch(classifiers.Question(task="wide", text=TEXT))

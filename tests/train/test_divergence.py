"""Training that diverged leaves no file and no checkpoint; training that only went badly leaves both as ever."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from diffpack.errors import DivergedError, UsageError
from diffpack.train import TrainOptions, load_task, train
from diffpack.train import run as run_module
from diffpack.train.divergence import require_sense
from diffpack.train.evaluate import Answers
from diffpack.train.loop import fit as fit_module
from tests.tools.tiny_bert import FAST

ONE_OF_EACH = ("lt-sft", "bitfit", "diff-pruning", "full", "adapters", "magnitude-pruning")
"""A method of each kind of stages."""


def test_numbers_that_are_not_finite_are_no_result(material, tmp_path, monkeypatch):
    model, texts, dev = material
    output = tmp_path / "task.dpk"
    with pytest.raises(UsageError, match="diverged: at step 2 of the stage 'training' the loss is nan"):
        train(model, texts, dev, output, TrainOptions(method="full", lr=1e38, **FAST))
    fit = run_module.fit

    def spoil(task, *rest):
        done = fit(task, *rest)
        next(iter(task.body.values())).data.view(-1)[3] = torch.inf  # as an overflow in the last step would
        return done

    monkeypatch.setattr(run_module, "fit", spoil)
    with pytest.raises(UsageError, match=r"diverged: 'bert\.embeddings\.word_embeddings\.weight' holds"):
        train(model, texts, dev, output, TrainOptions(method="full", **FAST))
    assert not output.exists()


@pytest.mark.parametrize(
    "chosen",
    [{}, {"selection": "random"}, *({"method": name} for name in ONE_OF_EACH)],
    ids=lambda chosen: "-".join(chosen.values()) or "fisher",
)
def test_so_high_a_rate_that_nothing_is_learnt_is_no_result(chosen, material, tmp_path):
    """All numbers stay finite."""
    model, texts, dev = material
    with pytest.raises(DivergedError, match=r"the loss is .*, before it was 0.68.*; nothing is written, try a lower"):
        train(model, texts, dev, tmp_path / "task.dpk", TrainOptions(lr=100.0, epochs=1, batch_size=16, **chosen))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chosen", [{}, {"method": "full"}, {"method": "head-only"}], ids=str)
@pytest.mark.parametrize("lr", [1e-12, 0.1])
def test_a_run_that_only_went_badly_is_written(chosen, lr, material, tmp_path):
    model, texts, dev = material
    done = train(model, texts, dev, tmp_path / "task.dpk", TrainOptions(lr=lr, **chosen, **FAST))
    assert done.output.exists()
    assert done.scores["accuracy"] < 0.7  # it learnt nothing


def test_the_last_step_of_a_stage_that_only_finds_entries_counts_too(material, tmp_path, monkeypatch):
    model, texts, dev = material

    def spoil(stage):
        if stage.name == "finding":
            stage.optimisers[0].param_groups[0]["params"][0].data.view(-1)[0] = torch.nan
        return require_finite(stage)

    require_finite = fit_module._require_finite
    monkeypatch.setattr(fit_module, "_require_finite", spoil)
    with pytest.raises(DivergedError, match="the stage 'finding' ends with numbers that are not finite"):
        train(model, texts, dev, tmp_path / "task.dpk", TrainOptions(method="lt-sft", **FAST))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoilt", "accuracy", "loss", "refused"),
    [
        (True, 0.5, 50.0, True),
        (True, 0.7, 50.0, True),  # 48 texts may give as much by luck
        (True, 0.8, 50.0, False),  # it tells something
        (True, 0.5, 2.0, False),  # no more than guessing costs, three times
        (False, 0.5, 50.0, False),  # only on the dev texts: learnt by heart, or a dev file of another kind
    ],
)
def test_what_is_refused_is_worse_than_guessing_on_both_files(spoilt, accuracy, loss, refused, material, tmp_path):
    model, texts, dev = material
    task = make(model, texts, dev)
    answers = Answers((0,) * 48, loss, accuracy, finite=True)
    if spoilt:
        with torch.no_grad():
            task.model.classifier.bias.copy_(torch.tensor([50.0, -50.0]))
    if refused:
        with pytest.raises(DivergedError, match="are right, as with one answer for all"):
            require_sense(task, task.model, answers)
    else:
        require_sense(task, task.model, answers)


def test_a_base_that_was_as_bad_before_did_not_diverge(material, tmp_path):
    """A classifier of these labels that says the wrong thing with great certainty, trained too little to mend it."""
    import transformers

    model, texts, dev = material
    base = tmp_path / "base"
    wrong = transformers.AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=2, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}
    )
    with torch.no_grad():
        wrong.classifier.bias.copy_(torch.tensor([50.0, -50.0]))
    wrong.save_pretrained(base)
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(base)
    assert train(base, texts, dev, tmp_path / "task.dpk", TrainOptions(head_epochs=0, lr=1e-6, **FAST)).output.exists()


def test_answers_that_are_not_finite_are_none(material, tmp_path):
    model, texts, dev = material
    task = make(model, texts, dev)
    with pytest.raises(DivergedError, match="answers are not finite"):
        require_sense(task, task.model, Answers((0,) * 48, float("nan"), 0.5, finite=False))
    train(model, texts, dev, tmp_path / "task.dpk", TrainOptions(method="head-only", **FAST))
    loaded = load_task(model, tmp_path / "task.dpk")
    with torch.no_grad():
        loaded.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(UsageError, match="answers are not finite"):
        loaded.predict(["good"])


def make(model, texts, dev):
    """The task before training."""
    from diffpack.train.task import make_task
    from diffpack.train.texts import read_tsv

    return make_task(model, read_tsv(texts), read_tsv(dev), TrainOptions(**FAST), 16)

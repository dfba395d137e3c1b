"""What the base may be: half precision, a classifier already, not BERT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import diffpack
from diffpack.errors import UsageError
from diffpack.train import TrainOptions, load_task, train
from diffpack.train.texts import read_tsv
from tests.tools.tiny_bert import FAST


def cast(model: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Write a model folder again, its weights in another dtype."""
    import transformers

    shutil.copytree(model, folder)
    transformers.AutoModel.from_pretrained(model, dtype=dtype).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize(
    "method", ["sparse", "lt-sft", "full", "diff-pruning-structured", "adapters", "movement-pruning", "smallest"]
)
def test_half_precision_is_trained_in_float32_and_rounded_once(method, dtype, material, tmp_path):
    """The same weights as float32 give the same training; what is stored is its rounding to the base's dtype."""
    model, texts, dev = material
    half = cast(model, tmp_path / "half", dtype)
    whole = cast(half, tmp_path / "whole", torch.float32)
    chosen = {"selection": method, "values": "f16"} if method == "smallest" else {"method": method, "values": "exact"}
    if method not in ("full", "adapters"):
        chosen["density"] = 0.1
    results = {}
    for base in (half, whole):
        output = tmp_path / f"{base.name}.dpk"
        done = train(base, texts, dev, output, TrainOptions(lr=1e-3, **chosen, **FAST))
        assert 0 <= done.scores["accuracy"] <= 1
        results[base] = diffpack.load(base, output, framework="torch")
    assert {value.dtype for value in results[half].values()} == {dtype}
    moved = 0
    start = diffpack.load(half, diffpack.extract(half, half), framework="torch")
    for name, value in results[whole].items():
        if method == "smallest":
            torch.testing.assert_close(results[half][name].float(), value, rtol=1e-2, atol=2e-3)
        else:
            assert torch.equal(results[half][name], value.to(dtype)), name
        own = name.removeprefix("bert.")
        moved += own in start and not torch.equal(start[own], results[half][name])
    assert moved


def classifier(model: Path, folder: Path, labels: list[str]) -> Path:
    """Write a folder that is a classifier already: of `good` by its first output, in the order given."""
    import transformers

    shutil.copytree(model, folder)
    torch.manual_seed(5)
    made = transformers.AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=len(labels), id2label=dict(enumerate(labels)),
        label2id={label: at for at, label in enumerate(labels)},
    )  # fmt: skip
    made.save_pretrained(folder)
    return folder


def test_a_classifier_of_the_same_labels_keeps_its_head_and_their_order(material, tmp_path):
    import transformers

    model, texts, dev = material
    base = classifier(model, tmp_path / "base", ["good", "bad"])  # sorted they stand the other way
    output = tmp_path / "task.dpk"
    for values in ("exact", "f16", "int8"):
        for selection in ("fisher", "random"):
            options = TrainOptions(lr=1e-12, head_epochs=0, values=values, selection=selection, **FAST)
            train(base, texts, dev, output, options, force=True)
            examples = read_tsv(dev)
            before = transformers.AutoModelForSequenceClassification.from_pretrained(base).eval()
            tokenizer = transformers.AutoTokenizer.from_pretrained(base)
            with torch.inference_mode():
                logits = before(**tokenizer(list(examples.texts), padding=True, return_tensors="pt")).logits
            expected = [before.config.id2label[at] for at in logits.argmax(-1).tolist()]
            assert load_task(base, output).predict(examples.texts) == expected
    assert set(expected) <= {"good", "bad"}
    assert load_task(base, output).labels == ("good", "bad")


def test_a_classifier_of_other_labels_gets_a_new_head(material, tmp_path):
    model, texts, dev = material
    base = classifier(model, tmp_path / "base", ["ham", "spam"])
    train(base, texts, dev, tmp_path / "a.dpk", TrainOptions(method="head-only", values="exact", lr=1e-12, **FAST))
    train(model, texts, dev, tmp_path / "b.dpk", TrainOptions(method="head-only", values="exact", lr=1e-12, **FAST))
    weights = diffpack.load(base, tmp_path / "a.dpk", framework="torch")
    old = diffpack.load(base, diffpack.extract(base, base), framework="torch")
    assert not torch.equal(weights["classifier.weight"], old["classifier.weight"])
    assert float(weights["classifier.weight"].std()) < 0.5  # as a new head is drawn
    assert load_task(base, tmp_path / "a.dpk").labels == ("bad", "good")


def test_labels_may_be_called_as_transformers_calls_them(material, tmp_path):
    """Its configuration leaves the default names out; the stored one has them."""
    model, texts, dev = material
    files = []
    for path in (texts, dev):
        renamed = path.read_text().replace("\tgood\n", "\tLABEL_1\n").replace("\tbad\n", "\tLABEL_0\n")
        files.append(tmp_path / path.name)
        files[-1].write_text(renamed)
    output = tmp_path / "task.dpk"
    done = train(model, *files, output, TrainOptions(method="head-only", **FAST))
    task = load_task(model, output)
    assert task.labels == ("LABEL_0", "LABEL_1")
    found = task.predict(read_tsv(files[1]).texts)
    truth = read_tsv(files[1]).labels
    assert done.scores["accuracy"] == pytest.approx(sum(map(str.__eq__, found, truth)) / len(truth))
    diffpack.apply(model, output, tmp_path / "applied")
    config = json.loads((tmp_path / "applied" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}


def test_a_decoder_whose_configuration_names_no_padding(material, tmp_path):
    import transformers

    model, texts, dev = material
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=32)
    folder = tmp_path / "decoder"
    transformers.GPT2Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = train(folder, texts, dev, tmp_path / "task.dpk", TrainOptions(density=0.1, **FAST))
    task = load_task(folder, tmp_path / "task.dpk")
    assert task.model.config.pad_token_id == tokenizer.pad_token_id
    assert 0.3 < done.scores["accuracy"] <= 1


def test_models_that_are_not_bert(material, tmp_path):
    """What is built on BERT's layers says so elsewhere; the rest works on any classifier."""
    import transformers

    model, texts, dev = material
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer), dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32
    )
    folder = tmp_path / "distil"
    transformers.DistilBertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for method in ("adapters", "lora"):
        with pytest.raises(UsageError, match="fit"):
            train(folder, texts, dev, tmp_path / "task.dpk", TrainOptions(method=method, **FAST))
    for method in ("sparse", "last-layer"):
        output = tmp_path / f"{method}.dpk"
        train(folder, texts, dev, output, TrainOptions(method=method, **FAST))
        diffpack.apply(folder, output, tmp_path / method)
        applied = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / method)
        task = load_task(folder, output)
        assert all(torch.equal(a, b) for a, b in zip(applied.parameters(), task.model.parameters(), strict=True))

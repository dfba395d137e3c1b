"""Mistakes of the user: each is named before anything is trained, or as soon as it shows; nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.numpy import save_file

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import diffpack
from diffpack.errors import CheckpointError, DiffpackError, UsageError
from diffpack.train import DiffPruner, SparseTuner, TrainOptions, load_task, train
from diffpack.train import run as run_module
from diffpack.train.texts import read_tsv
from tests.tools.tiny_bert import FAST, make_texts


def test_mistakes_are_named(material, tmp_path):
    model, texts, dev = material
    output = tmp_path / "task.dpk"
    (tmp_path / "columns.tsv").write_text("sentence\tlabel\nhello\tgood\n")
    (tmp_path / "ragged.tsv").write_text("text\tlabel\nhello\tgood\nhello\n")
    (tmp_path / "unknown.tsv").write_text("text\tlabel\nhello\tugly\n")
    (tmp_path / "one.tsv").write_text("text\tlabel\nhello\tgood\n")
    (tmp_path / "empty.tsv").write_text("text\tlabel\n")
    for train_file, dev_file, message in (
        ("columns.tsv", dev, "must name the columns"), ("ragged.tsv", dev, "line 3: 1 columns"),
        (texts, "unknown.tsv", "not have: 'ugly' \\(line 2\\)"), ("one.tsv", "one.tsv", "nothing to learn"),
        ("empty.tsv", dev, "no texts"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            train(model, tmp_path / train_file, tmp_path / dev_file, output)
    with pytest.raises(CheckpointError, match="no folder"):
        train(tmp_path / "nowhere", texts, dev, output)
    with pytest.raises(UsageError, match="layers"):
        train(model, texts, dev, output, TrainOptions(method="top-layers", layers=3))
    with pytest.raises(DiffpackError, match="no diff of the trainer"):
        load_task(model, diffpack.extract(model, model, tmp_path / "equal.dpk"))
    assert not output.exists()


def test_text_files(material, tmp_path):
    """Only a line feed ends a line; columns are named once; both files have pairs or none has."""
    model, texts, dev = material
    odd = 'one\u2028two\x85three\x0cfour "five'
    path = tmp_path / "odd.tsv"
    path.write_bytes(f"label\ttext\r\ngood\t{odd}\r\nbad\t{'x' * 200_000}\r\n".encode())
    assert read_tsv(path).texts == (odd, "x" * 200_000)
    assert read_tsv(path).labels == ("good", "bad")
    (tmp_path / "twice.tsv").write_text("text\tlabel\ttext\na\tgood\tb\n")
    with pytest.raises(UsageError, match="twice"):
        read_tsv(tmp_path / "twice.tsv")
    pairs = make_texts(tmp_path / "pairs.tsv", 24, 0, pairs=True)
    for train_file, dev_file in ((pairs, dev), (texts, pairs)):
        with pytest.raises(UsageError, match="text2"):
            train(model, train_file, dev_file, tmp_path / "task.dpk", TrainOptions(**FAST))
    train(model, pairs, pairs, tmp_path / "task.dpk", TrainOptions(method="head-only", **FAST))
    with pytest.raises(UsageError, match="pairs of texts"):
        load_task(model, tmp_path / "task.dpk").predict(["alone"])


@pytest.mark.parametrize("empty", ["", "  ", "\xa0"])
@pytest.mark.parametrize("column", ["text", "text2", "label"])
def test_a_line_with_something_empty_is_named(column, empty, tmp_path):
    row = {"text": "hello", "text2": "you", "label": "good"}
    lines = ["\t".join(row), "\t".join(row.values()), "\t".join({**row, column: empty}.values())]
    (tmp_path / "t.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=rf"t\.tsv, line 3: its {column} is empty"):
        read_tsv(tmp_path / "t.tsv")


def test_one_string_is_no_list(material, tmp_path):
    """A string is a sequence too, of letters: none of the calls that take several strings takes it for that."""
    model, texts, dev = material
    train(model, texts, dev, tmp_path / "task.dpk", TrainOptions(method="head-only", **FAST))
    task = load_task(model, tmp_path / "task.dpk")
    for wrong in ("good word1", b"good", None, 3):
        with pytest.raises(UsageError, match="texts are a list of strings"):
            task.predict(wrong)
    with pytest.raises(UsageError, match="pairs are a list of strings, not one string"):
        task.predict(["good"], "bad")
    with pytest.raises(UsageError, match="texts are strings, but number 1 is None"):
        task.predict(["good", None])
    assert task.predict([]) == []
    assert task.predict(text for text in ["good"]) == task.predict(["good"])
    task.pairs = True
    with pytest.raises(UsageError, match="2 texts and 1 pairs"):
        task.predict(["good", "bad"], ["word1"])
    net = torch.nn.Linear(2, 2)
    for call in (lambda: SparseTuner(net, {}, dense="bias"), lambda: DiffPruner(net, "weight")):
        with pytest.raises(UsageError, match="are a list of strings, not one string"):
            call()
    with pytest.raises(UsageError, match="positions are a mapping"):
        SparseTuner(net, ["weight"])
    with pytest.raises(UsageError, match="no parameter 'heavy'"):
        DiffPruner(net, ["heavy"])


def test_outputs_that_cannot_be(material, tmp_path, monkeypatch):
    model, texts, dev = material
    monkeypatch.setattr(run_module, "fit", lambda *_: pytest.fail("nothing is trained"))
    config = (model / "config.json").read_bytes()
    (tmp_path / "old.dpk.checkpoint").write_bytes(b"precious")
    for output, message in (
        (model / "config.json", "also an input"), (model / "model.safetensors", "also an input"),
        (texts, "also an input"), (tmp_path, "folder"), (tmp_path / "no" / "task.dpk", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            train(model, texts, dev, output, force=True)
    with pytest.raises(UsageError, match="--resume goes on"):
        train(model, texts, dev, tmp_path / "old.dpk")
    assert (model / "config.json").read_bytes() == config
    assert (tmp_path / "old.dpk.checkpoint").read_bytes() == b"precious"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder nobody may write to, root included")
def test_an_output_nobody_can_write_is_found_out_first(material, monkeypatch):
    model, texts, dev = material
    monkeypatch.setattr(run_module, "fit", lambda *_: pytest.fail("nothing is trained"))
    with pytest.raises(OSError, match=r"/proc/task\.dpk"):
        train(model, texts, dev, "/proc/task.dpk")


def test_folders_that_are_no_whole_model(material, tmp_path):
    """Without a vocabulary, with part of the weights, with weights of something else: nothing is made up."""
    model, texts, dev = material
    weights = dict(diffpack.load(model, diffpack.extract(model, model)))

    def folder(name: str) -> Path:
        shutil.copytree(model, tmp_path / name)
        return tmp_path / name

    for path in folder("wordless").glob("tokenizer*"):
        path.unlink()
    (folder("garbled") / "tokenizer.json").write_text("{}")
    (folder("torn") / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    lost = "encoder.layer.1.output.dense.weight"
    save_file({key: value for key, value in weights.items() if key != lost}, folder("partial") / "model.safetensors")
    save_file({f"other.{key}": value for key, value in weights.items()}, folder("other") / "model.safetensors")
    for name, message in (
        ("wordless", "tokenizer"), ("garbled", "tokenizer"), ("torn", "torn"), ("partial", lost),
        ("other", "lack 'bert.embeddings"),
    ):  # fmt: skip
        with pytest.raises(DiffpackError, match=message):
            train(tmp_path / name, texts, dev, tmp_path / "task.dpk", TrainOptions(**FAST))
    long = tmp_path / "long.tsv"
    long.write_text(dev.read_text() + f"{'good ' * 40}\tgood\n")
    with pytest.raises(UsageError, match="42 tokens, the model has room for 32: --max-length 32"):
        train(model, texts, long, tmp_path / "task.dpk", TrainOptions(epochs=1))
    assert not (tmp_path / "task.dpk").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"method": "magic"}, {"density": 0}, {"density": 1.5}, {"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")},
     {"values": "f8"}, {"selection": "best"}, {"seed": -1}, {"max_length": 2}, {"batch_size": 0}, {"floor": 2},
     {"head_epochs": -1}, {"precision": "fp8"}, {"dropout": 1.0}, {"dropout": -0.1}, {"penalty": -1e-7},
     {"fixed_lr": 0.0}],
)  # fmt: skip
def test_options_are_checked(wrong):
    with pytest.raises(UsageError):
        TrainOptions(**wrong)


@pytest.mark.parametrize(
    "unfit",
    [{"method": "bitfit", "density": 0.1}, {"method": "lt-sft", "selection": "random"}, {"layers": 3}, {"size": 8},
     {"method": "full", "penalty": 1.0}, {"fixed_lr": 1e-3}, {"find_lr": 1e-3}, {"method": "spiel", "floor": 0.1},
     {"selection": "random", "floor": 0.1}],
)  # fmt: skip
def test_options_that_a_method_does_not_take_are_refused(unfit):
    with pytest.raises(UsageError, match="takes no"):
        TrainOptions(**unfit)

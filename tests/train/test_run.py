"""From texts to a file and back: every method, interruptions, and what a fresh process predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import diffpack
from diffpack.errors import CorruptFileError, UsageError
from diffpack.train import METHODS, TrainOptions, load_task, train
from diffpack.train import run as run_module
from diffpack.train.options import SPARSE_MODELS, TAKEN_BY
from diffpack.train.texts import read_tsv
from tests.tools.tiny_bert import FAST, make_texts


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_a_file_whose_score_is_reported(method, material, tmp_path):
    if method == "lora":
        pytest.importorskip("peft")
    model, texts, dev = material
    density = 0.5 if method in SPARSE_MODELS else 0.02
    chosen = {"density": density} if method in TAKEN_BY["density"] else {}
    output = tmp_path / "task.dpk"
    done = train(model, texts, dev, output, TrainOptions(method=method, **chosen, **FAST))
    examples = read_tsv(dev)
    found = load_task(model, output).predict(examples.texts)
    right = sum(a == b for a, b in zip(found, examples.labels, strict=True)) / len(found)
    assert done.scores["accuracy"] == pytest.approx(right)
    assert not list(tmp_path.glob("*.checkpoint"))
    with diffpack.open(output) as diff:
        kinds = {name: diff[name].kind for name in diff}
        dtypes = {name: diff[name].dtype for name in diff}
        changed = sum(diff[name].count for name in diff if kinds[name] == "changed")
        notes = {key: json.loads(value) for key, value in diff.metadata.items()}
    assert kinds["classifier.weight"] == "new"
    assert notes["train"]["method"] == method
    assert notes["data"]["dev"]["blake3"] == examples.digest
    assert notes["metrics"]["dev"] == done.scores
    if method in ("sparse", "lt-sft", "spiel", "diff-pruning", "diff-pruning-structured", "non-adaptive"):
        assert 0 < changed <= round(density * done.pool)
    if method == "head-only":
        assert changed == 0
    if method in SPARSE_MODELS:  # of the stored model, in a file that says so
        weights = diffpack.load(model, output)
        matrices = [value for name, value in weights.items() if ".layer." in name and value.ndim > 1]
        assert all(np.count_nonzero(value) == value.size // 2 for value in matrices)
        assert notes["train"]["values"] == "exact"
    if method in ("adapters", "lora"):
        assert notes["builder"]["kind"] in ("houlsby", "lora")
        assert {dtypes[name] for name in kinds if ".adapter." in name or ".lora_" in name} == {"F16"}
        assert {name for name in kinds if kinds[name] == "changed"} <= {name for name in kinds if "LayerNorm" in name}
    assert done.bytes_without_head < done.stored.nbytes


def test_it_learns(material, tmp_path):
    model, _, dev = material
    texts = make_texts(tmp_path / "t.tsv", 192, 0)
    options = TrainOptions(method="sparse", density=0.2, lr=1e-2, epochs=12, batch_size=16, max_length=16)
    assert train(model, texts, dev, tmp_path / "task.dpk", options).scores["accuracy"] > 0.9


def test_a_fresh_process_predicts_the_same(material, tmp_path):
    model, texts, dev = material
    options = TrainOptions(method="adapters", lr=2e-2, **FAST)
    train(model, texts, dev, tmp_path / "task.dpk", options)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from diffpack.train import load_task\nfrom diffpack.train.texts import read_tsv\n"
        "print(*load_task(sys.argv[1], sys.argv[2]).predict(read_tsv(sys.argv[3]).texts))"
    )
    command = [sys.executable, "-c", code, model, tmp_path / "task.dpk", dev]
    printed = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    assert printed.split() == load_task(model, tmp_path / "task.dpk").predict(read_tsv(dev).texts)
    assert set(printed.split()) == {"good", "bad"}


def test_mixed_precision_and_dropout_change_the_training_alone(material, tmp_path):
    """Products in bfloat16 move the result a little; weights stay float32, the configuration as it was."""
    model, texts, dev = material
    weights, configs = {}, set()
    for name, chosen in {
        "plain": {}, "bf16": {"precision": "bf16"}, "again": {"precision": "bf16"}, "still": {"dropout": 0.0},
    }.items():  # fmt: skip
        output = tmp_path / f"{name}.dpk"
        train(model, texts, dev, output, TrainOptions(method="full", values="exact", lr=1e-3, **FAST, **chosen))
        diffpack.apply(model, output, tmp_path / name)
        weights[name] = diffpack.load(model, output, framework="torch")["classifier.weight"]
        configs.add((tmp_path / name / "config.json").read_text())
    assert len(configs) == 1
    assert "attn_implementation" not in configs.pop()
    assert torch.equal(weights["bf16"], weights["again"])
    assert weights["bf16"].dtype == torch.float32
    for name in ("bf16", "still"):
        assert not torch.equal(weights["plain"], weights[name])
    assert torch.allclose(weights["plain"], weights["bf16"], atol=5e-3)


class StoppedError(Exception):
    """Stands for a signal."""


@pytest.mark.parametrize(
    ("method", "stop_at"),  # of sparse: its selection
    [("fisher", 5), ("fisher", 9), ("random", 9), ("smallest", 9), ("largest", 9), ("lt-sft", 4), ("lt-sft", 17),
     ("spiel", 20), ("diff-pruning", 7), ("movement-pruning", 9), ("magnitude-pruning", 9), ("full", 8),
     ("bitfit", 6), ("adapters", 6)],
)  # fmt: skip
def test_a_resumed_run_gives_the_same_bytes(method, stop_at, material, tmp_path, monkeypatch):
    model, texts, dev = material
    chosen = {"method": method} if method in METHODS else {"method": "sparse", "selection": method}
    if chosen["method"] in TAKEN_BY["density"]:
        chosen["density"] = 0.3
    options = TrainOptions(**chosen, epochs=4 if method == "spiel" else 2, batch_size=16, lr=1e-3)
    train(model, texts, dev, tmp_path / "whole.dpk", options)
    monkeypatch.setattr(run_module, "Resume", lambda *args: loop_resume(*args))

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == stop_at:
            raise StoppedError

    output = tmp_path / "task.dpk"
    with pytest.raises(StoppedError):
        train(model, texts, dev, output, options, progress=interrupt)
    assert not output.exists()
    seen: list[int] = []
    train(model, texts, dev, output, options, resume=True, progress=lambda _what, done, _total: seen.append(done))
    assert seen[0] == stop_at
    assert output.read_bytes() == (tmp_path / "whole.dpk").read_bytes()


def test_force_replaces_the_output_and_resume_still_goes_on(material, tmp_path, monkeypatch):
    model, texts, dev = material
    options = TrainOptions(method="full", epochs=2, batch_size=16, lr=1e-3)
    train(model, texts, dev, tmp_path / "whole.dpk", options)
    monkeypatch.setattr(run_module, "Resume", lambda *args: loop_resume(*args))

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 4:
            raise StoppedError

    output, checkpoint = tmp_path / "task.dpk", tmp_path / "task.dpk.checkpoint"
    output.write_bytes(b"an older task")
    with pytest.raises(StoppedError):
        train(model, texts, dev, output, options, force=True, progress=interrupt)
    kept = checkpoint.read_bytes()
    with pytest.raises(UsageError, match="--force"):
        train(model, texts, dev, output, options, resume=True)  # the output is in the way
    assert (output.read_bytes(), checkpoint.read_bytes()) == (b"an older task", kept)
    seen: list[int] = []
    both = {"resume": True, "force": True, "progress": lambda _what, done, _total: seen.append(done)}
    train(model, texts, dev, output, options, **both)
    assert seen[0] == 4  # the checkpoint is of the step before
    assert output.read_bytes() == (tmp_path / "whole.dpk").read_bytes()
    assert not checkpoint.exists()


def test_what_was_spent_before_an_interruption_counts(material, tmp_path, monkeypatch):
    model, texts, dev = material
    monkeypatch.setattr(run_module, "Resume", lambda *args: loop_resume(*args))

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 3:
            raise StoppedError

    output, checkpoint = tmp_path / "task.dpk", tmp_path / "task.dpk.checkpoint"
    with pytest.raises(StoppedError):
        train(model, texts, dev, output, TrainOptions(method="full", **FAST), progress=interrupt)
    state = torch.load(checkpoint, weights_only=True)
    assert 0 < state["cost"]["seconds"] < 1000
    state["cost"] = {"seconds": 1000.0, "cpu_seconds": 2000.0, "peak_memory": 1 << 50}
    torch.save(state, checkpoint)
    cost = train(model, texts, dev, output, TrainOptions(method="full", **FAST), resume=True).cost
    assert 1000 < cost.seconds < 1100
    assert 2000 < cost.cpu_seconds < 2100
    assert cost.peak_memory == 1 << 50


def loop_resume(path: Path, identity: str, resume: bool):
    from diffpack.train.loop.fit import Resume

    return Resume(path, identity, resume, seconds_between=0.0)


def test_another_run_is_not_resumed(material, tmp_path):
    model, texts, dev = material
    output = tmp_path / "task.dpk"
    checkpoint = tmp_path / "task.dpk.checkpoint"

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 8:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(model, texts, dev, output, TrainOptions(method="lt-sft", **FAST), progress=interrupt)
    assert not checkpoint.exists()  # nothing is written before a minute, or a stage, has passed
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(CorruptFileError, match="delete it"):
        train(model, texts, dev, output, TrainOptions(method="lt-sft", **FAST), resume=True)
    torch.save({"identity": "another", "cost": {}, "model": {}}, checkpoint)
    with pytest.raises(UsageError, match="another run"):
        train(model, texts, dev, output, TrainOptions(method="lt-sft", **FAST), resume=True)


def test_the_same_seed_gives_the_same_bytes(material, tmp_path):
    model, texts, dev = material
    made = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        path = tmp_path / f"{name}.dpk"
        train(model, texts, dev, path, TrainOptions(method="spiel", seed=seed, density=0.05, **FAST))
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_exact_values_and_pairs_of_texts(material, tmp_path):
    """Exact values give back what was in memory; the applied folder loads with transformers alone."""
    import transformers

    model, _, _ = material
    texts, dev = make_texts(tmp_path / "t.tsv", 48, 2, pairs=True), make_texts(tmp_path / "d.tsv", 24, 3, pairs=True)
    output = tmp_path / "task.dpk"
    train(model, texts, dev, output, TrainOptions(values="exact", density=0.1, lr=1e-2, **FAST))
    with diffpack.open(output) as diff:
        assert diff.exact
    diffpack.apply(model, output, tmp_path / "applied")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "applied").eval()
    task = load_task(model, output)
    for (name, got), want in zip(loaded.named_parameters(), task.model.parameters(), strict=True):
        assert torch.equal(got, want), name
    assert loaded.config.architectures == ["BertForSequenceClassification"]
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    examples = read_tsv(dev)
    assert len(task.predict(examples.texts, examples.pairs)) == 24


@pytest.mark.parametrize("selection", ["smallest", "largest", "random"])
@pytest.mark.parametrize("values", ["f16", "int8"])
def test_positions_that_the_base_or_the_seed_tells_take_no_bytes(selection, values, material, tmp_path, monkeypatch):
    model, texts, dev = material
    trained: list[dict[str, torch.Tensor]] = []
    make_diff = run_module.make_diff

    def seen(task, *args, **options):
        trained.append({name: value.clone() for name, value in task.model.state_dict().items()})
        return make_diff(task, *args, **options)

    monkeypatch.setattr(run_module, "make_diff", seen)
    output = tmp_path / "task.dpk"
    done = train(model, texts, dev, output, TrainOptions(selection=selection, values=values, density=0.05, **FAST))
    with diffpack.open(output) as diff:
        told = [decoder for decoder in diff.decoders if decoder.group.position_coding_id == "rule"]
        rest = {decoder.position_coding.id for decoder in diff.decoders if not decoder.value_coding.exact}
        assert rest == {"rule"}  # the new head is stored exactly, the body by the rule alone
        for decoder in told:
            spans = decoder.chunks[1:] if values == "int8" else decoder.chunks
            assert sum(diff.chunks[at].streams[0].count for at in spans) == sum(decoder.group.counts or ())
            assert all(len(diff.chunks[at].streams) == 1 for at in spans)
        names = {name for decoder in told for name in decoder.group.names}
        assert sum(diff[name].count for name in names) <= round(0.05 * done.pool)
        before = diffpack.open_checkpoint(model)
        result = diffpack.load(before, diff)
        chosen = {name: torch.from_numpy(diff.against(before)[name].positions) for name in names}
        scales = {name: float(diff[name].scale) for name in names}
    own = {new: old for old in before.tensors for new in trained[0] if f".{new}".endswith(f".{old}")}
    moved = 0
    for name, value in trained[0].items():
        after, wanted = torch.as_tensor(result[name]), value
        if name not in names:
            assert torch.equal(after, wanted)
            continue
        old = torch.from_numpy(before.words(own[name]).view("f4").copy())
        difference = wanted.view(-1) - old
        outside = torch.ones(old.numel(), dtype=torch.bool)
        outside[chosen[name]] = False
        assert not difference[outside].any()  # training moved nothing else
        assert torch.equal(after.view(-1)[outside], old[outside])
        moved += int(difference.count_nonzero())
        if values == "f16":
            expected = old + difference.half().float()
            assert torch.equal(after.view(-1), expected)
        else:
            assert ((after - wanted).abs() <= scales[name] * 0.51 + 1e-6).all() or scales[name] == 0
    assert moved > 100

"""What the pages of docs/ speak of: the files their commands begin with, and the names their Python knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

import diffpack
from tests.tools.models import Arrays, tune, write_safetensors

Scopes = Iterator[dict[str, Any]]
LABELS = {"sst2": ["negative", "positive"], "mnli": ["entailment", "neutral", "contradiction"], "rte": ["yes", "no"]}
DENSITY = 0.005
"""Of the real model's weights that change in what looks like a fine-tune of it."""


def nothing(folder: Path) -> Scopes:
    """Nothing but diffpack."""
    return repeat({})


def weeks(folder: Path, base: Path) -> Scopes:
    """The real base, and what looks like a fine-tune a week, each going on from the one before."""
    (folder / "base").symlink_to(base)
    state = _arrays(base)
    for week in (1, 2, 3):
        state = _moved(state, week)
        _save(folder / "runs" / f"week-{week}", state, base)
    return repeat({})


def tasks(folder: Path, base: Path) -> Scopes:
    """The real base, and what looks like three tasks of it, each with a head of its own."""
    (folder / "base").symlink_to(base)
    for seed, (name, labels) in enumerate(LABELS.items()):
        head = np.random.default_rng(seed).normal(0, 0.02, (len(labels), 384)).astype(np.float32)
        state = _moved(_arrays(base), seed) | {
            "classifier.weight": head,
            "classifier.bias": np.zeros(len(labels), np.float32),
        }
        _save(folder / "tasks" / name, state, base, labels)
    return repeat({})


def pair(folder: Path, base: Path) -> Scopes:
    """The real base and its real fine-tune."""
    (folder / "base").symlink_to(base)
    (folder / "tuned").symlink_to(base.parent.parent / "rohan_pristine" / "model_files")
    return repeat({})


def texts(folder: Path) -> Scopes:
    """A tiny model with its tokenizer, texts to train it on, and a fine-tune that is there already."""
    import torch

    from tests.tools.tiny_bert import make_model, make_texts

    torch.set_num_threads(1)
    make_model(folder / "model")
    make_texts(folder / "train.tsv", 96, 0)
    make_texts(folder / "dev.tsv", 48, 1)
    rng = np.random.default_rng(0)
    state = {f"layer.{at}.weight": rng.normal(0, 0.05, (512, 1024)).astype(np.float32) for at in range(4)}
    _files(folder / "BASE", state)
    for array in state.values():  # moved along few directions, and a little everywhere
        few = rng.standard_normal((512, 2)) @ rng.standard_normal((2, 1024)) + 0.1 * rng.standard_normal((512, 1024))
        array += (0.001 * few).astype(np.float32)
    _files(folder / "TUNED", state)
    return repeat({})


def policy(folder: Path) -> Scopes:
    """A tiny language model in bfloat16."""
    from tests.tools.peft_models import make_model

    make_model("LlamaForCausalLM", folder / "policy", "bfloat16")
    return repeat({})


def named(folder: Path) -> Scopes:
    """A model whose names have a prefix, what other libraries would call its tensors, and a task of it."""
    rng = np.random.default_rng(0)
    names = [f"{part}.{at}.attn.weight" for part in ("model.layers", "visual.layers") for at in range(3)]
    state = {name: rng.standard_normal((16, 16)).astype(np.float32) for name in names}
    base = write_safetensors(folder / "base.safetensors", state, {"format": "pt"})
    _extracted(base, tune(state), folder / "task.dpk")
    other = {
        name.replace("model.", "model.language_model.").replace("visual.", "model.visual."): array
        for name, array in tune(state).items()
    }
    write_safetensors(folder / "tuned.safetensors", other, {"format": "pt"})
    plain = {f"layers.{at}.attn.weight": rng.standard_normal((16, 16)).astype(np.float32) for at in range(3)}
    write_safetensors(folder / "layers.safetensors", plain, {"format": "pt"})
    blocks = {name.replace("layers", "blocks").replace("attn", "attention"): array for name, array in plain.items()}
    write_safetensors(folder / "blocks.safetensors", tune(blocks, 0.1), {"format": "pt"})
    return repeat({})


def small_tasks(folder: Path) -> Scopes:
    """A small base as a folder, and a folder of three of its tasks."""
    rng = np.random.default_rng(0)
    state = {f"layers.{at}.mlp.weight": rng.standard_normal((16, 16)).astype(np.float32) for at in range(3)}
    _files(folder / "base", state)
    (folder / "diffs").mkdir()
    for seed in range(3):
        _extracted(state, tune(state, 0.1, seed), folder / "diffs" / f"task{seed}.dpk")
    return repeat({})


def diffs(folder: Path) -> Scopes:
    """A small base as a file and as a folder, a chain of three diffs of it, and three tasks, one with a head."""
    rng = np.random.default_rng(0)
    names = [f"model.layers.{at}.{part}.weight" for at in range(3) for part in ("attn", "mlp")]
    state = {name: rng.standard_normal((16, 16)).astype(np.float32) for name in names}
    base = write_safetensors(folder / "base.safetensors", state, {"format": "pt"})
    _files(folder / "base", state)
    write_safetensors(folder / "newer.safetensors", tune(state, 0.05, 9), {"format": "pt"})
    last = state
    for step in (1, 2, 3):
        last, before = tune(last, 0.05, step), last
        _extracted(before, last, folder / f"step{step}.dpk")
    head = {"classifier.weight": rng.standard_normal((2, 16)).astype(np.float32)}
    for seed, name in enumerate("abc"):
        _extracted(base, tune(state, 0.1, seed + 20) | (head if name == "a" else {}), folder / f"{name}.dpk")
    models = [{"model": f"{name}.dpk", "parameters": {"weight": 0.5, "density": 0.5}} for name in ("step1", "c")]
    config = {"merge_method": "ties", "base_model": "base", "models": models, "dtype": "float32"}
    (folder / "mergekit.yml").write_text(json.dumps(config))  # JSON is YAML
    return repeat({})


def library(folder: Path) -> Scopes:
    """A tiny BERT, fine-tunes of it as a folder, a file and in memory, and two tasks with heads to merge."""
    from tests.tools.live_models import loaded, make, scatter, tuned
    from tests.tools.signed import make_key

    base = make("BertModel", folder / "base")
    moved = scatter(loaded("BertModel", base), 1, 0.1)
    (folder / "runs").mkdir()
    tuned("BertModel", base, folder / "runs" / "sst2")
    write_safetensors(folder / "runs" / "mnli.safetensors", {k: v.numpy() for k, v in moved.state_dict().items()})
    diffpack.extract(base, moved.state_dict(), folder / "task.dpk", budget="50%")
    for seed, name in enumerate("ab"):
        own = scatter(loaded("BertForSequenceClassification", base, num_labels=2 + seed), seed, 0.1)
        diffpack.extract(base, own.state_dict(), folder / f"{name}.dpk")
    diffpack.extract(base, folder / "runs" / "sst2", folder / "sst2.dpk")
    own_key, alice, _ = (make_key(folder, name) for name in ("id_ed25519", "alice", "bob"))
    (folder / "allowed_signers").write_text(f"me@example.org {own_key.line}\n")
    alice.public.write_text(f"{own_key.line}\n")  # one of both is the one that signed
    return repeat({"diffpack": diffpack, "model_a": moved, "model_b": loaded("BertModel", base)})


def bridges(folder: Path) -> Scopes:
    """A tiny Llama, a step of it as a diff and as another tool's patch, a PEFT adapter, and three tasks."""
    import peft

    from tests.tools.tiny_llama import adapt, make_llama

    base = make_llama(folder / "model")
    state = _arrays(base)
    _extracted(base, tune(state), folder / "step.dpk")
    diffpack.convert(folder / "step.dpk", folder / "patch.safetensors", to="sparse-safetensors", base=base)
    adapt(base, folder / "my-lora", peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for seed, name in enumerate(("sst2", "mnli", "qqp")):
        _extracted(base, tune(state, seed=seed), folder / f"{name}.dpk")
    return repeat({"diffpack": diffpack})


def live(folder: Path) -> Scopes:
    """A tiny BERT and two tasks of it; modules at work, fresh in each section."""
    import torch

    from tests.tools.live_models import loaded, make, scatter

    base = make("BertModel", folder / "base")
    (folder / "model-folder").symlink_to("base")
    for seed, name in enumerate(("sst2", "rte")):
        own = loaded(
            "BertForSequenceClassification", base, id2label=dict(enumerate(LABELS[name])),
            label2id={label: at for at, label in enumerate(LABELS[name])},
        )  # fmt: skip
        scatter(own, seed, 0.1).save_pretrained(folder / name)
        diffpack.extract(base, folder / name, folder / f"{name}.dpk", files="model")
    diffpack.extract(base, scatter(loaded("BertModel", base), 5, 0.1).state_dict(), folder / "task.dpk")

    def scopes() -> Scopes:
        while True:
            model, replica = loaded("BertModel", base), loaded("BertModel", base)
            diffpack.live.apply_(replica, folder / "task.dpk")  # what the page's model is when its steps begin
            switcher = diffpack.live.TaskSwitcher(model, base)
            for name in ("sst2", "rte"):
                switcher.add(name, folder / f"{name}.dpk")
            yield {
                "diffpack": diffpack, "model": model, "batch": {"input_ids": torch.ones(4, 2, dtype=torch.int64)},
                "before": loaded("BertModel", base), "after": scatter(loaded("BertModel", base), 6, 0.1),
                "train": lambda module: scatter(module, 7, 0.01), "switcher": switcher,
                "replica": replica, "known": diffpack.live.Steps(replica).fingerprint,
            }  # fmt: skip

    return scopes()


WORLDS: Mapping[str, Callable[[Path], Scopes]] = {
    "algebra.md": diffs,
    "api.md": library,
    "bridges.md": bridges,
    "budgets.md": texts,
    "jobs/switch.md": nothing,
    "jobs/sync.md": policy,
    "jobs/train.md": texts,
    "live.md": live,
    "names.md": named,
    "reliability.md": nothing,
    "report.md": small_tasks,
    "size.md": nothing,
    "speed.md": nothing,
    "train.md": texts,
}
"""By page, what it begins with."""
REAL_WORLDS: Mapping[str, Callable[[Path, Path], Scopes]] = {
    "index.md": pair,
    "jobs/archive.md": weeks,
    "jobs/compress.md": pair,
    "jobs/cost.md": tasks,
    "jobs/merge.md": tasks,
}
"""The same for pages that show what real models take."""


def _arrays(folder: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def _moved(state: Arrays, seed: int) -> Arrays:
    """Move a few weights of every float tensor, as a sparse fine-tune does."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, array in state.items():
        moved[name] = array.copy()
        if array.dtype == np.float32:
            places = rng.integers(0, array.size, int(array.size * DENSITY))
            moved[name].reshape(-1)[places] += rng.normal(0, 0.01, len(places)).astype(np.float32)
    return moved


def _save(folder: Path, state: Arrays, base: Path, labels: list[str] | None = None) -> None:
    """Write a model folder with the base's configuration, and labels if it has a head."""
    _files(folder, state)
    config = json.loads((base / "config.json").read_text())
    if labels:
        config["id2label"] = dict(enumerate(labels))
        config["architectures"] = ["BertForSequenceClassification"]
    text = json.dumps(config, indent=2) if labels else (base / "config.json").read_text()
    (folder / "config.json").write_text(text)


def _files(folder: Path, state: Arrays, like: Path | None = None) -> None:
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", state, {"format": "pt"})
    if like:
        (folder / "config.json").write_bytes((like / "config.json").read_bytes())


def _extracted(base: Path | Arrays, tuned: Arrays, output: Path) -> None:
    diffpack.extract(base, tuned, output)

"""An adapter PEFT saved becomes the model that PEFT itself merges, however many of its tensors lead to one of the base.

PEFT is run here, on tiny models: tests/tools/tiny_llama.py.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("peft")
pytest.importorskip("transformers")

import peft
import torch
from safetensors.torch import load_file, save_file

import diffpack
from diffpack.errors import UsageError
from tests.tools.llama_adapters import EMBED, HEAD, PREFIX, imported, lora, same
from tests.tools.tiny_llama import ROWS, adapt, make_llama

CASES = {
    "linear": ({}, {"target_modules": ["q_proj", "down_proj"]}, {}),
    "embedding": ({}, {"target_modules": ["embed_tokens", "q_proj"]}, {}),
    "embedding without its base layer": ({}, {"target_modules": ["embed_tokens"]}, {"save_embedding_layers": False}),
    "embedding and head": ({}, {"target_modules": ["embed_tokens", "lm_head", "v_proj"]}, {}),
    "everything linear": ({}, {"target_modules": "all-linear"}, {}),
    "modules to save": ({}, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, {}),
    "a module to save that is a target, too": (
        {}, {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}, {},
    ),
    "modules to save, grown": (
        {}, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, {"grown": 3},
    ),
    "grown and not trained": ({}, {"target_modules": ["q_proj"]}, {"grown": 3}),
    "grown embedding and head": ({}, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}, {"grown": 3}),
    "biases": ({"bias": True}, {"target_modules": ["q_proj"], "bias": "all"}, {}),
    "changes of biases": ({"bias": True}, {"target_modules": ["q_proj"], "lora_bias": True}, {}),
    "a classifier": ({"labels": True}, {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"}, {"labels": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_becomes_what_peft_merges(tmp_path, case):
    model, config, options = CASES[case]
    base = make_llama(tmp_path / "base", **model)
    merged = adapt(base, tmp_path / "adapter", lora(**config), **options)
    done, found = imported(base, tmp_path / "adapter")
    same(found, merged)
    diffpack.verify(done.diff, base / "model.safetensors")
    assert not done.exact  # sums, and PEFT's differ in the last bits
    assert not any("no factors" in note for note in done.notes)


def test_the_embedding_really_changes(tmp_path):
    base = make_llama(tmp_path / "base")
    merged = adapt(base, tmp_path / "adapter", lora(target_modules=["embed_tokens"]))
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert PREFIX + "model.embed_tokens.base_layer.weight" in saved
    done, found = imported(base, tmp_path / "adapter")
    before = load_file(base / "model.safetensors")[EMBED].numpy()
    assert np.abs(found[EMBED] - before).max() > 0.1
    assert np.allclose(found[EMBED], merged[EMBED], atol=1e-6)
    assert list(done.diff) == [EMBED]


def test_a_head_the_base_lacks_is_new(tmp_path):
    """The adapter of a classifier on a base without one: its head is stored whole."""
    whole = make_llama(tmp_path / "whole", labels=True)
    merged = adapt(whole, tmp_path / "adapter", lora(target_modules=["q_proj"], task_type="SEQ_CLS"), labels=True)
    base = tmp_path / "base"
    base.mkdir()
    tensors = load_file(whole / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, base / "model.safetensors")
    done, found = imported(base, tmp_path / "adapter")
    same(found, merged)
    assert done.diff["score.weight"].kind == "new"
    assert any("no tensors of these names: score.weight" in note for note in done.notes)
    unprefixed = tmp_path / "unprefixed"
    unprefixed.mkdir()
    renamed = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(renamed, unprefixed / "model.safetensors")
    for rules in ([], [("", "model.")]):
        told, found = imported(unprefixed, tmp_path / "adapter", rename=rules)
        assert set(found) == {*renamed, "score.weight"}
        assert any("no 'model.' in front" in note for note in told.notes) == (not rules)


def test_half_precision_is_rounded_once(tmp_path):
    """PEFT rounds the change to float16 before it adds and rounds again."""
    base = make_llama(tmp_path / "base")
    tensors = {name: tensor.half() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    config = lora(target_modules=["embed_tokens", "q_proj"], modules_to_save=["lm_head"])
    merged = adapt(base, tmp_path / "adapter", config, dtype="float16")
    _, found = imported(base, tmp_path / "adapter")
    for name, array in found.items():
        assert array.dtype == np.float16, name
        change = np.abs(merged[name] - tensors[name].float().numpy())
        ulp = 2.0**-10 * np.maximum(np.abs(merged[name]), change)
        assert (np.abs(array.astype(np.float32) - merged[name]) <= ulp).all(), name


def test_what_is_only_replaced_is_exact(tmp_path):
    """What the adapter holds whole comes bit for bit."""
    base = make_llama(tmp_path / "base")
    adapt(base, tmp_path / "adapter", lora(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    saved = {name: tensor for name, tensor in load_file(path).items() if "lora" not in name}
    save_file(saved, path)
    done, found = imported(base, tmp_path / "adapter")
    assert done.exact
    assert np.array_equal(found[HEAD], saved[PREFIX + HEAD].numpy())
    assert any("no factors of 2 layers" in note and "layers.0.self_attn.q_proj" in note for note in done.notes)


def edited(adapter, change):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_two_that_lead_to_one_tensor_are_refused_unless_they_are_the_same(tmp_path):
    base = make_llama(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapt(base, adapter, lora(target_modules=["embed_tokens"], modules_to_save=["lm_head"]))
    kept = (adapter / "adapter_model.safetensors").read_bytes()
    own, stored = PREFIX + EMBED, PREFIX + "model.embed_tokens.base_layer.weight"
    edited(adapter, lambda tensors: tensors.update({own: tensors[stored].clone()}))
    imported(base, adapter)
    edited(adapter, lambda tensors: tensors.update({own: tensors[stored] + 1}))
    with pytest.raises(UsageError, match=r"embed_tokens.* replace model\.embed_tokens\.weight, and they differ"):
        imported(base, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(kept)
    pair = {"lora_A.weight": torch.ones(1, 8), "lora_B.weight": torch.ones(ROWS, 1)}
    edited(adapter, lambda tensors: tensors.update({f"{PREFIX}model.embed_tokens.{end}": x for end, x in pair.items()}))
    with pytest.raises(UsageError, match=r"are added to model\.embed_tokens\.weight"):
        imported(base, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(kept)
    edited(adapter, lambda tensors: tensors.update({PREFIX + "lm_head.original_module.weight": torch.zeros(ROWS, 8)}))
    imported(base, adapter)
    edited(adapter, lambda tensors: tensors.pop(PREFIX + HEAD))
    with pytest.raises(UsageError, match="what was trained is missing"):
        imported(base, adapter)


def test_a_shira_adapter_on_a_head(tmp_path):
    base = make_llama(tmp_path / "base")
    config = peft.ShiraConfig(r=1, target_modules=["lm_head", "q_proj"], init_weights=False, random_seed=3)
    merged = adapt(base, tmp_path / "adapter", config)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    stored = PREFIX + "lm_head.base_layer.weight"
    assert stored in saved
    done, found = imported(base, tmp_path / "adapter")
    same(found, merged)
    assert done.diff[HEAD].value_coding.id == "f32"
    assert not done.exact
    edited(tmp_path / "adapter", lambda tensors: tensors.update({stored: tensors[stored] + 1}))
    done, found = imported(base, tmp_path / "adapter")
    assert np.allclose(found[HEAD], merged[HEAD] + 1, atol=1e-6)
    assert not done.exact


SETTINGS = {
    "all": ({}, ["model.layers.1.self_attn.q_proj"]),
    "one layer": ({"layers_to_transform": [0]}, []),
    "another layer": ({"layers_to_transform": 1, "layers_pattern": "layers"}, ["model.layers.1.self_attn.q_proj"]),
    "left out": ({"exclude_modules": ["layers.1.self_attn.q_proj"]}, []),
    "several": (
        {"target_modules": ["q_proj", "embed_tokens"]}, ["model.embed_tokens", "model.layers.1.self_attn.q_proj"],
    ),
    "saved whole": ({"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head", "layers.1"]}, []),
    "all linear": ({"target_modules": "all-linear"}, ["model.layers.1.self_attn.q_proj"]),
    "an expression": ({"target_modules": r".*\.q_proj"}, ["model.layers.1.self_attn.q_proj"]),
    "an expression that leaves out": ({"exclude_modules": r".*\.q_proj"}, []),
    "an expression of some": ({"target_modules": r".*\.0\..*q_proj"}, []),
    "an expression that is not known": ({"target_modules": r"(?<=x).*"}, None),
    "nothing": ({"target_modules": None}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_layers_without_factors_are_told(tmp_path, case):
    settings, without = SETTINGS[case]
    base = make_llama(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapt(base, adapter, lora(target_modules=["q_proj"]))
    edited(adapter, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name])
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | settings))
    notes = imported(base, adapter)[0].notes
    told = [note for note in notes if note.startswith("no factors of")]
    if without is None:
        assert any("regular expression" in note for note in notes)
        assert not told
    elif without:
        (note,) = told
        assert note.endswith(", ".join(without))
        assert f"of {len(without)} layer" in note
    else:
        assert not told

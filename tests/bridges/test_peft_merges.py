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
from diffpack.errors import UsageError, WrongBaseError
from tests.tools.peft_models import load_adapted, load_model, merge_adapter
from tests.tools.tiny_llama import ROWS, adapt, make_llama

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PREFIX = "base_model.model."


def lora(**settings):
    return peft.LoraConfig(**{"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings})


def imported(base, adapter, **options):
    done = diffpack.convert(adapter, base=base / "model.safetensors", **options)
    return done, diffpack.load(base / "model.safetensors", done.diff)


def same(found, merged, *, without=()):
    """Every tensor is PEFT's but for rounding; `without` are names that PEFT has for tied ones."""
    assert found.keys() | set(without) == merged.keys()
    for name, array in found.items():
        assert array.shape == merged[name].shape, name
        assert np.abs(array.astype(np.float32) - merged[name]).max() <= 1e-6 * max(1, np.abs(merged[name]).max()), name


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


@pytest.mark.parametrize(
    ("targets", "grown"), [(["embed_tokens", "q_proj"], 0), (["q_proj"], 3), (["embed_tokens", "q_proj"], 3)]
)
def test_a_tied_head(tmp_path, targets, grown):
    """The base's file has one tensor for both; what PEFT saves of the head is tied again."""
    base = make_llama(tmp_path / "base", tied=True)
    assert HEAD not in load_file(base / "model.safetensors")
    merged = adapt(base, tmp_path / "adapter", lora(target_modules=targets), grown=grown)
    done, found = imported(base, tmp_path / "adapter")
    saved = PREFIX + HEAD in load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert saved == (grown > 0 and "embed_tokens" not in targets)
    same(found, merged, without=() if saved else (HEAD,))
    assert done.diff.manifest.aliases == ({HEAD: EMBED} if saved else {})
    assert found[EMBED].shape[0] == ROWS + grown
    assert any("more rows than in the base" in note for note in done.notes) == (grown > 0)


TIED_TARGETS = [["lm_head"], ["embed_tokens", "lm_head"], ["lm_head", "q_proj"]]


@pytest.mark.parametrize("ensured", [False, True])
@pytest.mark.parametrize("targets", TIED_TARGETS)
def test_factors_of_a_tied_head_change_both_as_peft_merges_them(tmp_path, targets, ensured):
    base = make_llama(tmp_path / "base", tied=True)
    ensured = ensured and "embed_tokens" in targets  # PEFT then gives the head factors that are tied, too
    adapt(base, tmp_path / "adapter", lora(target_modules=targets, ensure_weight_tying=ensured))
    merged = merge_adapter("LlamaForCausalLM", base, tmp_path / "adapter")
    done, found = imported(base, tmp_path / "adapter")
    same(found, merged, without=(HEAD,))
    assert any("both change, as in PEFT's merge_and_unload" in note for note in done.notes)


@pytest.mark.parametrize("targets", TIED_TARGETS)
def test_factors_of_a_tied_head_may_change_it_apart_as_an_adapter_runs(tmp_path, targets):
    """Untied, the model answers what the adapter answers while it is not merged."""
    base = make_llama(tmp_path / "base", tied=True)
    adapt(base, tmp_path / "adapter", lora(target_modules=targets))
    done, _ = imported(base, tmp_path / "adapter", options={"tied": "apart"})
    assert done.diff[HEAD].kind == "new"
    diffpack.apply(base, done.diff, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    words = torch.arange(ROWS)[None]
    with torch.no_grad():
        answered = load_model("LlamaForCausalLM", tmp_path / "out")(words).logits
        adapted = load_adapted("LlamaForCausalLM", base, tmp_path / "adapter")(words).logits
    assert torch.allclose(answered, adapted, atol=1e-5)


def test_a_tied_head_is_refused_where_the_base_says_that_it_has_its_own(tmp_path):
    base = make_llama(tmp_path / "base", tied=True)
    adapt(base, tmp_path / "adapter", lora(target_modules=["lm_head"]))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(
        WrongBaseError, match=r"no tensors of these names: lm_head\.weight .*the adapter says it is for"
    ):
        imported(base, tmp_path / "adapter")
    with pytest.raises(UsageError, match="tied is together or apart"):
        imported(base, tmp_path / "adapter", options={"tied": "no"})


def test_a_base_that_has_the_tied_head_twice_is_told_of(tmp_path):
    base = make_llama(tmp_path / "base", tied=True)
    tensors = load_file(base / "model.safetensors")
    tensors[HEAD] = tensors[EMBED].clone()
    save_file(tensors, base / "model.safetensors")
    adapt(make_llama(tmp_path / "tied", tied=True), tmp_path / "adapter", lora(target_modules=["embed_tokens"]))
    done, found = imported(base, tmp_path / "adapter")
    assert any(note.startswith(f"{HEAD} equals {EMBED} in the base") for note in done.notes)
    assert np.array_equal(found[HEAD], tensors[HEAD].numpy())


def test_a_base_that_holds_one_tensor_under_two_names(tmp_path):
    """A `.bin` file tells that they are tied: both change, as PEFT merges them."""
    base = make_llama(tmp_path / "base", tied=True)
    tensors = load_file(base / "model.safetensors")
    tensors[HEAD] = tensors[EMBED]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    merged = adapt(base, tmp_path / "adapter", lora(target_modules=["embed_tokens"]))
    done = diffpack.convert(tmp_path / "adapter", base=tmp_path / "pytorch_model.bin")
    same(diffpack.load(tmp_path / "pytorch_model.bin", done.diff), merged)
    assert done.diff.manifest.aliases == {HEAD: EMBED}
    assert any(note.endswith(f"{HEAD} with {EMBED}") for note in done.notes)


@pytest.mark.parametrize("saved", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_modules_to_save_of_a_tied_model(tmp_path, saved):
    """PEFT unties what it replaces; where the base has one name for both, an embedding alone is told of."""
    base = make_llama(tmp_path / "base", tied=True)
    merged = adapt(base, tmp_path / "adapter", lora(target_modules=["q_proj"], modules_to_save=saved))
    done, found = imported(base, tmp_path / "adapter")
    same(found, merged, without=() if "lm_head" in saved else (HEAD,))
    assert any("keeps the old one" in note for note in done.notes) == (saved == ["embed_tokens"])


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

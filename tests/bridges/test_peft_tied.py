"""Adapters of models whose head is tied to their embedding: both change, or are told apart, as PEFT has them.

PEFT is run here, on tiny models: tests/tools/tiny_llama.py.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("peft")
pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file

import diffpack
from diffpack.errors import UsageError, WrongBaseError
from tests.tools.llama_adapters import EMBED, HEAD, PREFIX, imported, lora, same
from tests.tools.peft_models import load_adapted, load_model, merge_adapter
from tests.tools.tiny_llama import ROWS, adapt, make_llama


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

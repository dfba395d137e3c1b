"""Adapters of the models people have become what PEFT merges of them, to rounding, and load with transformers.

A bound, not a tolerance: PEFT multiplies the factors in float32, we in float64. A sum of r products in float32 is, in
any order, at most r x 2^-24 x |B| |A| off (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), the scale and
the change's own rounding add one each, and both sums with the weight are rounded: an ulp between them. DoRA's norms are
sums of as many squares as there are inputs; what they divide is rounded some times more.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("peft")
pytest.importorskip("transformers")

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

import diffpack
from diffpack.errors import UsageError
from tests.tools.peft_models import answers, arrays, load_adapted, load_model, make_model, merge_adapter, train_adapter

EPSILON = 2.0**-24  # half an ulp of float32 numbers, relative


def lora(**settings):
    return peft.LoraConfig(**{"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings})


CASES = {
    "BERT without a prefix, as a classifier": ("BertModel", "BertForSequenceClassification", {"task_type": "SEQ_CLS"}),
    "BERT with one, as a classifier": ("BertForMaskedLM", "BertForSequenceClassification", {"task_type": "SEQ_CLS"}),
    "BERT with a prefix, as it is": ("BertForMaskedLM", "BertModel", {"task_type": "FEATURE_EXTRACTION"}),
    "BERT, all biases": ("BertModel", "BertForSequenceClassification", {"task_type": "SEQ_CLS", "bias": "all"}),
    "BERT, labels of words": ("BertModel", "BertForTokenClassification", {"task_type": "TOKEN_CLS"}),
    "RoBERTa": ("RobertaForMaskedLM", "RobertaForSequenceClassification", {"task_type": "SEQ_CLS"}),
    "Llama without a prefix, as a classifier": (
        "LlamaModel", "LlamaForSequenceClassification", {"task_type": "SEQ_CLS", "target_modules": ["q_proj"]},
    ),
    "Llama, as a classifier": (
        "LlamaForCausalLM", "LlamaForSequenceClassification", {"task_type": "SEQ_CLS", "target_modules": ["q_proj"]},
    ),
    "GPT-2": ("GPT2LMHeadModel", None, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "GPT-2, square matrices": ("GPT2LMHeadModel", None, {"target_modules": ["attn.c_proj"]}),
    "GPT-2 and its head": ("GPT2LMHeadModel", None, {"target_modules": ["c_attn", "c_proj", "lm_head"]}),
    "GPT-2, square matrices and the head": ("GPT2LMHeadModel", None, {"target_modules": ["attn.c_proj", "lm_head"]}),
    "GPT-2 and its embedding": ("GPT2LMHeadModel", None, {"target_modules": ["c_attn", "wte"]}),
    "GPT-2 without a prefix, as a classifier": ("GPT2Model", "GPT2ForSequenceClassification", {"task_type": "SEQ_CLS"}),
    "T5": ("T5ForConditionalGeneration", None, {"target_modules": ["q", "v"]}),
    "T5 and its shared embedding": ("T5ForConditionalGeneration", None, {"target_modules": ["q", "shared"]}),
    "T5 and its tied head": ("T5ForConditionalGeneration", None, {"target_modules": ["q", "lm_head"]}),
    "Mixtral's attention": ("MixtralForCausalLM", None, {"target_modules": ["q_proj", "o_proj"]}),
    "patterns of ranks and alphas": (
        "LlamaForCausalLM", None,
        {
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "rank_pattern": {"q_proj": 4, r"layers\.\d\.mlp\.down_proj": 1},
            "alpha_pattern": {
                r"layers\.[0-9]\.self_attn\.(q|k)_proj": 5, ".*v_proj": 7, "^model.layers.1.self_attn.q_proj": 9,
            },
        },
    ),
    "rsLoRA with ranks": (
        "LlamaForCausalLM", None,
        {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "rank_pattern": {"v_proj": 5}},
    ),
    "some layers": (
        "LlamaForCausalLM", None,
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "modules left out": (
        "LlamaForCausalLM", None,
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
    ),
    "expressions": (
        "LlamaForCausalLM", None,
        {"target_modules": r".*\.(q|v)_proj", "exclude_modules": r"(?!.*layers\.1).*v_proj"},
    ),
    "trained biases": ("LlamaForCausalLM", None, {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "trained tokens": (
        "LlamaForCausalLM", None, {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 1]}},
    ),
    "trained tokens of the embedding": (
        "LlamaForCausalLM", None, {"target_modules": ["q_proj"], "trainable_token_indices": [5, 1]},
    ),
    "an image model": (
        "ViTModel", "ViTForImageClassification",
        {"target_modules": ["projection", "dense"], "modules_to_save": ["classifier"]},
    ),
    "DoRA": ("LlamaForCausalLM", None, {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}),
    "DoRA of GPT-2": ("GPT2LMHeadModel", None, {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "DoRA of an image model": (
        "ViTModel", "ViTForImageClassification", {"target_modules": ["projection"], "use_dora": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_becomes_what_peft_merges_to_rounding(tmp_path, case):
    """And loads with transformers as the model it is of."""
    stored, kind, settings = CASES[case]
    kind = kind or stored
    model = {"attention_bias": True} if settings.get("bias") == "lora_only" else {}
    base = make_model(stored, tmp_path / "base", **model)
    adapter = train_adapter(kind, base, lora(**settings), tmp_path / "adapter")
    expected = merge_adapter(kind, base, adapter)
    done = diffpack.convert(adapter, tmp_path / "d.dpk", base=base)
    diffpack.verify(done.output, base)
    diffpack.apply(base, done.output, tmp_path / "out")
    found = arrays(load_model(kind, tmp_path / "out"))
    assert found.keys() == expected.keys()
    room, before = roundings(load_adapted(kind, base, adapter)), arrays(load_model(kind, base))
    for name, array in expected.items():
        assert (np.abs(found[name].astype(float) - array) <= room.get(name, 0)).all(), name
    assert any(not np.array_equal(array, before[name]) for name, array in expected.items())


def roundings(model):
    """How far PEFT's merged weights may be from ours, by their names; layers of one tied weight add up."""
    owners: dict[int, list[str]] = {}
    for name, tensor in model.get_base_model().state_dict(keep_vars=True).items():
        owners.setdefault(id(tensor), []).append(name.replace("base_layer.", ""))
    room = {}
    for module in model.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            for name in owners[id(weight)]:
                room[name] = room.get(name, 0) + roundings_of(module, weight.detach().double().numpy())
    return room


def roundings_of(module, weight):
    """Those of one layer."""
    embedding = "default" in module.lora_embedding_A
    first, second = (
        (part["default"] if embedding else part["default"].weight).detach().flatten(1).double().numpy()
        for part in (
            (module.lora_embedding_A, module.lora_embedding_B) if embedding else (module.lora_A, module.lora_B)
        )
    )
    rank, scale = first.shape[0], module.scaling["default"]
    turned = embedding or getattr(module, "fan_in_fan_out", False)
    size, change = scale * (np.abs(second) @ np.abs(first)), scale * (second @ first)
    before = (weight.T if turned else weight).reshape(size.shape)
    bound, whole = (rank + 2) * EPSILON * size, np.abs(before) + size
    if len(module.lora_magnitude_vector):
        norms = np.linalg.norm(before + change, axis=1, keepdims=True)
        factors = module.lora_magnitude_vector["default"].weight.detach().double().numpy().reshape(-1, 1) / norms
        lost = np.linalg.norm(size, axis=1, keepdims=True) / norms  # what a sum of rank products lost, of the norm
        bound, whole = np.abs(factors) * bound, np.abs(factors) * whole
        bound += whole * EPSILON * (size.shape[1] / 2 + 8 + (rank + 2) * lost)
        whole += np.abs(before)
    bound += 2 * EPSILON * whole
    return (bound.T if turned else bound).reshape(weight.shape)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_what_peft_merges_but_for_its_second_rounding(tmp_path, dtype):
    base = make_model("LlamaForCausalLM", tmp_path / "base", dtype)
    config = lora(target_modules=["q_proj"], trainable_token_indices=[3])
    adapter = train_adapter("LlamaForCausalLM", base, config, tmp_path / "adapter", dtype)
    expected = merge_adapter("LlamaForCausalLM", base, adapter, dtype)
    before = {name: tensor.float().numpy() for name, tensor in load_file(base / "model.safetensors").items()}
    done = diffpack.convert(adapter, tmp_path / "d.dpk", base=base)
    diffpack.apply(base, done.output, tmp_path / "out")
    found = arrays(load_model("LlamaForCausalLM", tmp_path / "out", dtype))
    step = 2.0 ** (-7 if dtype == "bfloat16" else -10)
    for name, array in expected.items():
        ulp = step * np.maximum(np.abs(array), np.abs(array - before[name])) * ("q_proj" in name)
        assert (np.abs(found[name] - array) <= ulp).all(), name


def test_trained_tokens_alone_are_exact(tmp_path):
    base = make_model("LlamaForCausalLM", tmp_path / "base", tie_word_embeddings=True)
    config = lora(target_modules=["q_proj"], trainable_token_indices=[7, 2])
    adapter = train_adapter("LlamaForCausalLM", base, config, tmp_path / "adapter")
    expected = merge_adapter("LlamaForCausalLM", base, adapter)
    done = diffpack.convert(adapter, base=base)
    found = diffpack.load(base, done.diff)["model.embed_tokens.weight"]
    assert np.array_equal(found, expected["model.embed_tokens.weight"])
    assert len(done.diff["model.embed_tokens.weight"].positions) == 16


def test_experts_of_a_mixture_are_refused_by_name(tmp_path):
    base = make_model("MixtralForCausalLM", tmp_path / "base")
    config = lora(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"])
    adapter = train_adapter("MixtralForCausalLM", base, config, tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"target_parameters: only .*merge_and_unload"):
        diffpack.convert(adapter, base=base)


def test_the_model_answers_as_the_adapter_does(tmp_path):
    base = make_model("LlamaForCausalLM", tmp_path / "base")
    config = lora(target_modules="all-linear", use_rslora=True)
    adapter = train_adapter("LlamaForCausalLM", base, config, tmp_path / "adapter")
    done = diffpack.convert(adapter, tmp_path / "d.dpk", base=base)
    diffpack.apply(base, done.output, tmp_path / "out")
    ours = answers(load_model("LlamaForCausalLM", tmp_path / "out"))
    theirs = answers(load_adapted("LlamaForCausalLM", base, adapter))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, answers(load_model("LlamaForCausalLM", base)), atol=1e-2)

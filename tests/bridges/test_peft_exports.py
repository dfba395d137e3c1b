"""What is written for PEFT is loaded by PEFT, and merges to the model the diff leads to."""

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
from diffpack.bridges.formats.low_rank import low_rank
from diffpack.errors import BaseNeededError, UsageError
from tests.tools.models import bits
from tests.tools.peft_models import answers, arrays, load_adapted, load_model, make_model, merge_adapter, train_adapter

LLAMA = "LlamaForCausalLM"
Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.input_layernorm.weight"


def tuned_by_lora(kind, tmp_path, dtype="float32", model=None, **settings):
    """A base, and what PEFT merges of an adapter of it, saved by transformers."""
    base = make_model(kind, tmp_path / "base", dtype, **(model or {}))
    config = peft.LoraConfig(**{"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings})
    adapter = train_adapter(kind, base, config, tmp_path / "adapter", dtype)
    load_adapted(kind, base, adapter, dtype).merge_and_unload().save_pretrained(tmp_path / "tuned")
    return base, tmp_path / "tuned"


CASES = {
    "linear layers": (LLAMA, {"target_modules": "all-linear"}),
    "an embedding": (LLAMA, {"target_modules": ["q_proj", "embed_tokens"]}),
    "ranks": (LLAMA, {"target_modules": ["q_proj", "v_proj", "o_proj"], "rank_pattern": {"v_proj": 3}}),
    "layers stored turned": ("GPT2LMHeadModel", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "layers and an embedding of GPT-2": ("GPT2LMHeadModel", {"target_modules": ["c_attn", "wpe"]}),
    "biases of all layers": ("BertModel", {"target_modules": ["query"], "bias": "all"}),
    "encoder and decoder": ("T5ForConditionalGeneration", {"target_modules": ["q", "v", "wi"]}),
    "modules saved whole": (LLAMA, {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_of_low_rank_is_written_as_factors(tmp_path, case):
    """What they miss is rounding: of the base's sums, of the factors, of PEFT's own product."""
    kind, settings = CASES[case]
    base, tuned = tuned_by_lora(kind, tmp_path, **settings)
    diff = diffpack.extract(base, tuned)
    done = diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)
    assert (done.direction, done.exact) == ("export", False)
    ours, theirs = merge_adapter(kind, base, tmp_path / "out"), arrays(load_model(kind, tuned))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() <= 1e-6 * max(1, np.abs(array).max()), name
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    ranks = {
        name: tensor.shape[0] for name, tensor in found.items() if name.endswith((".lora_A.weight", "_embedding_A"))
    }
    assert set(ranks.values()) == ({2, 3} if case == "ranks" else {2})
    again = diffpack.convert(tmp_path / "out", base=base).diff
    assert set(again) == set(diff)


def test_an_adapter_that_is_not_merged_answers_as_the_tuned_model(tmp_path):
    base, tuned = tuned_by_lora(LLAMA, tmp_path, target_modules="all-linear")
    diffpack.convert(diffpack.extract(base, tuned), tmp_path / "out", to="peft-lora", base=base)
    found = answers(load_adapted(LLAMA, base, tmp_path / "out"))
    assert torch.allclose(found, answers(load_model(LLAMA, tuned)), atol=1e-5)
    assert not torch.allclose(found, answers(load_model(LLAMA, base)), atol=1e-2)


def test_rounding_to_half_precision_is_told_from_a_change_of_full_rank(tmp_path):
    base, tuned = tuned_by_lora(LLAMA, tmp_path, "bfloat16", target_modules=["q_proj"])
    diff = diffpack.extract(base, tuned)
    with pytest.raises(UsageError, match=r"rank 2 miss .* 1e-06 \(no more than what rounding to BF16 took"):
        diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base, options={"tolerance": "1e-6"})
    done = diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)
    assert any("factors of rank 2 miss at most 0.0" in note for note in done.notes)
    ours = merge_adapter(LLAMA, base, tmp_path / "out", "bfloat16")
    for name, array in arrays(load_model(LLAMA, tuned, "bfloat16")).items():
        step = 2.0**-7 * np.abs(array).max() if "q_proj" in name else 0
        assert np.abs(ours[name] - array).max() <= step, name


@pytest.mark.parametrize("values", ["exact", "f16"])
def test_what_was_trained_with_lora_is_the_adapter_that_was_trained(tmp_path, values):
    """Its factors and its head, bit for bit; PEFT answers with them as the stored task does."""
    pytest.importorskip("sklearn")
    from diffpack.train import TrainOptions, load_task, train
    from tests.tools import tiny_bert

    base = tiny_bert.make_model(tmp_path / "base")
    texts, dev = (tiny_bert.make_texts(tmp_path / f"{at}.tsv", 32, at) for at in (1, 2))
    options = TrainOptions(method="lora", size=3, values=values, **tiny_bert.FAST)
    train(base, texts, dev, tmp_path / "task.dpk", options)
    done = diffpack.convert(tmp_path / "task.dpk", tmp_path / "out", to="peft-lora", base=base)
    assert done.exact
    assert any("load it on a model that has classifier" in note for note in done.notes)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["task_type"]) == (3, 6, "SEQ_CLS")
    task = load_task(base, tmp_path / "task.dpk")
    adapted = load_adapted("BertForSequenceClassification", base, tmp_path / "out")
    inputs = task.tokenizer(["good word1", "bad word2 word3"], return_tensors="pt", padding=True)
    with torch.no_grad():
        assert torch.allclose(adapted(**inputs).logits, task.model.float()(**inputs).logits, atol=1e-6)
    merged = diffpack.convert(tmp_path / "out", base=base).diff
    assert "classifier.weight" in merged
    assert "encoder.layer.0.attention.self.query.weight" in merged


def test_a_class_with_a_head_finds_layers_of_a_base_without_its_prefix(tmp_path):
    """There and back: PEFT finds every tensor by its name, or `load_adapted` fails."""
    kind, base = "BertForSequenceClassification", make_model("BertModel", tmp_path / "base")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False, bias="lora_only")
    adapter = train_adapter(kind, base, config, tmp_path / "adapter")
    diff = diffpack.convert(adapter, base=base).diff
    done = diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base, options={"prefix": "bert."})
    assert not any("the option prefix" in note for note in done.notes)
    plain = diffpack.convert(diff, tmp_path / "plain", to="peft-lora", base=base)
    assert any("the option prefix says so" in note for note in plain.notes)
    ours, theirs = merge_adapter(kind, base, tmp_path / "out"), merge_adapter(kind, base, adapter)
    for name, array in theirs.items():
        assert np.abs(ours[name] - array).max() <= 1e-6, name
    assert set(load_file(tmp_path / "out" / "adapter_model.safetensors")) == set(
        load_file(adapter / "adapter_model.safetensors")
    )


def test_a_shira_adapter_of_a_base_without_the_prefix(tmp_path):
    kind, base = "BertForSequenceClassification", make_model("BertModel", tmp_path / "base")
    name = "encoder.layer.0.attention.self.query.weight"
    diff = diffpack.extract(base, changed(base, tmp_path / "tuned", [name]))
    diffpack.convert(diff, tmp_path / "out", to="peft-shira", base=base, options={"prefix": "bert."})
    ours = merge_adapter(kind, base, tmp_path / "out")["bert." + name]
    assert np.array_equal(ours, load_file(tmp_path / "tuned" / "model.safetensors")[name].numpy())


def test_factors_without_a_scale_are_refused(tmp_path):
    base = {"m.q.weight": np.eye(4, dtype=np.float32)}
    factors = {"m.q.lora_A.default.weight": np.ones((1, 4), np.float32), "m.q.lora_B.default.weight": np.ones((4, 1))}
    diff = diffpack.extract(base, base | factors)
    with pytest.raises(UsageError, match=r"m\.q\.lora_A\.default\.weight .* is a factor whose scale no note says"):
        diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)


def changed(base, path, names, value=0.5):
    """The base with some entries of some tensors changed."""
    tensors = load_file(base / "model.safetensors")
    for name in names:
        tensors[name].view(-1)[::3] += value
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": "2"}, r"change of model\.layers\.0\.mlp\.up_proj\.weight .* rank 2 miss 0\.\d+ of it, .* \(and 2 is"),
        ({"rank": "0"}, "rank is a whole number from 1 on, not '0'"),
        ({"rank": "2.5"}, "rank is a whole number"),
        ({"tolerance": "-1"}, "tolerance is a number from 0 on"),
        ({"tolerance": "nan"}, "tolerance is a number from 0 on"),
        ({"alpha": "3"}, "has no option 'alpha'"),
    ],
)  # fmt: skip
def test_a_change_of_no_low_rank_is_refused_by_name_with_the_error(tmp_path, options, message):
    base = make_model(LLAMA, tmp_path / "base")
    rng = torch.Generator().manual_seed(3)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] += torch.randn(16, 8, generator=rng)
    save_file(tensors, tmp_path / "tuned.safetensors")
    diff = diffpack.extract(base, tmp_path / "tuned.safetensors")
    with pytest.raises(UsageError, match=message):
        diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base, options=options)
    assert not (tmp_path / "out").exists()


def test_what_an_adapter_cannot_hold_is_refused(tmp_path):
    base = make_model("ViTModel", tmp_path / "base")
    conv = "embeddings.patch_embeddings.projection.weight"
    for names, message in (([conv], "no matrix of floats"), (["embeddings.cls_token"], "no matrix of floats")):
        diff = diffpack.extract(base, changed(base, tmp_path / "tuned", names))
        with pytest.raises(UsageError, match=message):
            diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)
    llama = make_model(LLAMA, tmp_path / "llama")
    diff = diffpack.extract(llama, changed(llama, tmp_path / "norm", [NORM]))
    with pytest.raises(UsageError, match="changes no matrix"):
        diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=llama)
    with pytest.raises(BaseNeededError):
        diffpack.convert(diff, tmp_path / "out", to="peft-lora")
    tensors = load_file(llama / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(31, 8)
    save_file(tensors, tmp_path / "grown.safetensors")
    with pytest.raises(UsageError, match=r"lm_head\.weight \(resized, .* another shape"):
        diffpack.convert(
            diffpack.extract(llama, tmp_path / "grown.safetensors"), tmp_path / "out", to="peft-lora", base=llama
        )


def test_norms_are_saved_whole_beside_factors(tmp_path):
    base = make_model("BertModel", tmp_path / "base")
    query, norm = "encoder.layer.0.attention.self.query.weight", "encoder.layer.1.output.LayerNorm.weight"
    tensors = load_file(changed(base, tmp_path / "tuned", [norm]) / "model.safetensors")
    tensors[query] += torch.outer(torch.arange(8.0), torch.ones(8))
    save_file(tensors, tmp_path / "tuned" / "model.safetensors", {"format": "pt"})
    diffpack.convert(diffpack.extract(base, tmp_path / "tuned"), tmp_path / "out", to="peft-lora", base=base)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["modules_to_save"] == [norm.removesuffix(".weight")]
    assert (settings["r"], settings["lora_alpha"]) == (1, 1)
    ours = merge_adapter("BertModel", base, tmp_path / "out")
    assert np.array_equal(ours[norm], tensors[norm].numpy())
    assert np.allclose(ours[query], tensors[query].numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 30), (500, 400), (400, 500)])
def test_factors_are_as_thin_as_the_noise_allows(shape):
    """By all singular values, and by a sketch of the largest."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(shape) * 1e-6
    matrix = rng.standard_normal((shape[0], 5)) @ rng.standard_normal((5, shape[1])) + noise
    found = low_rank(matrix, 1.01 * np.linalg.norm(noise), 8)
    assert found.rank == 5
    assert found.error <= 1.01 * np.linalg.norm(noise) + 1e-6 * np.linalg.norm(matrix)
    assert np.isclose(found.error, np.linalg.norm(matrix - found.product()))
    again = low_rank(matrix, 1.01 * np.linalg.norm(noise), 8)
    assert np.array_equal(found.left, again.left)
    least = low_rank(matrix, 0, 3)
    exact = np.linalg.svd(matrix, compute_uv=False)
    assert least.rank == 3
    assert np.isclose(least.error, np.linalg.norm(exact[3:]), rtol=1e-3)
    assert low_rank(matrix, np.inf, 8).rank == 1


SHIRA = {
    LLAMA: ["q_proj", "o_proj", "gate_proj", "down_proj", "lm_head"],
    "BertForSequenceClassification": ["query", "dense", "classifier"],
    "T5ForConditionalGeneration": ["q", "wi", "wo"],
    "MixtralForCausalLM": ["q_proj", "v_proj"],
}


@pytest.mark.parametrize("kind", SHIRA)
def test_peft_loads_and_merges_a_shira_adapter_bit_for_bit(tmp_path, kind):
    base = make_model(kind, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    names = [name for name in tensors if name.split(".")[-2] in SHIRA[kind] and tensors[name].ndim == 2]
    assert names
    for at, name in enumerate(names):
        tensors[name].view(-1)[at : at + 3] *= 2
    (tmp_path / "tuned").mkdir()
    save_file(tensors, tmp_path / "tuned" / "model.safetensors", {"format": "pt"})
    diff = diffpack.extract(base, tmp_path / "tuned" / "model.safetensors")
    done = diffpack.convert(diff, tmp_path / "out", to="peft-shira", base=base)
    assert done.exact
    (tmp_path / "tuned" / "config.json").write_bytes((base / "config.json").read_bytes())
    ours, theirs = merge_adapter(kind, base, tmp_path / "out"), arrays(load_model(kind, tmp_path / "tuned"))
    assert bits(ours) == bits(theirs)
    assert bits(ours) != bits(arrays(load_model(kind, base)))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (LLAMA, "model.embed_tokens.weight"),
        ("GPT2LMHeadModel", "transformer.wte.weight"),
        ("GPT2LMHeadModel", "transformer.h.0.attn.c_attn.weight"),
        ("GPT2LMHeadModel", "transformer.h.0.attn.c_proj.weight"),
        ("BertModel", "embeddings.word_embeddings.weight"),
        ("T5ForConditionalGeneration", "shared.weight"),
    ],
)
def test_what_peft_refuses_as_shira_is_not_written(tmp_path, kind, name):
    base = make_model(kind, tmp_path / "base")
    config = peft.ShiraConfig(r=1, target_modules=[name.removesuffix(".weight")])
    with pytest.raises(TypeError, match="is not supported"):
        peft.get_peft_model(load_model(kind, base), config)
    diff = diffpack.extract(base, changed(base, tmp_path / "tuned", [name]))
    with pytest.raises(UsageError, match=f"{name} is "):
        diffpack.convert(diff, tmp_path / "out", to="peft-shira", base=base)

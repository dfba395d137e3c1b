"""Factors of a diff become an adapter: those that came from one bit for bit, others as PEFT multiplies them."""

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
from benchmarks.adapter import adapted as run_by_peft
from benchmarks.adapter import apart, embeddings, load, make_adapter, misses, rows
from tests.tools.adapters import BASE, A, B, adapter
from tests.tools.models import bits
from tests.tools.peft_models import answers, load_adapted, load_model, make_model, merge_adapter, train_adapter

LLAMA = "LlamaForCausalLM"
WEIGHTS = "adapter_model.safetensors"

CASES = {
    "linear layers": (LLAMA, LLAMA, {"target_modules": "all-linear"}),
    "an embedding": (LLAMA, LLAMA, {"target_modules": ["q_proj", "embed_tokens"]}),
    "ranks and alphas": (
        LLAMA, LLAMA,
        {
            "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 3},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 5},
        },
    ),
    "rsLoRA": (LLAMA, LLAMA, {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "r": 3}),
    "layers stored turned": ("GPT2LMHeadModel", "GPT2LMHeadModel", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "a convolution": ("ViTModel", "ViTModel", {"target_modules": ["projection"]}),
    "biases": ("BertModel", "BertModel", {"target_modules": ["query"], "bias": "all"}),
    "encoder and decoder": ("T5ForConditionalGeneration",) * 2 + ({"target_modules": ["q", "v", "wi"]},),
    "a classifier": ("BertForMaskedLM", "BertForSequenceClassification", {"task_type": "SEQ_CLS"}),
}  # fmt: skip


def stored_bytes(adapter):
    found = load_file(adapter / WEIGHTS)
    return {key: (tensor.shape, tensor.numpy().tobytes()) for key, tensor in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_comes_back_bit_for_bit(tmp_path, case):
    stored, kind, settings = CASES[case]
    base = make_model(stored, tmp_path / "base")
    config = peft.LoraConfig(**{"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings})
    made = train_adapter(kind, base, config, tmp_path / "adapter")
    diff = diffpack.convert(made, tmp_path / "d.dpk", base=base).diff
    done = diffpack.convert(tmp_path / "d.dpk", tmp_path / "out", to="peft-lora", base=base)
    assert not any(note.startswith("left out") for note in done.notes)
    ours, theirs = stored_bytes(tmp_path / "out"), stored_bytes(made)
    factors = {name for name in theirs if "lora_" in name}
    assert factors
    assert factors == {name for name in ours if "lora_" in name}
    assert {name: ours[name] for name in factors} == {name: theirs[name] for name in factors}
    again = diffpack.convert(tmp_path / "out", base=base).diff
    assert bits(diffpack.load(base, again)) == bits(diffpack.load(base, diff))
    if stored == kind:
        merged, expected = (merge_adapter(kind, base, path) for path in (tmp_path / "out", made))
        for name, array in expected.items():
            assert np.abs(merged[name] - array).max() <= 1e-6 * max(1, np.abs(array).max()), name


def low_rank_alone(base, diff, path):
    """The base with what a diff's factors come to, without its grid."""
    tensors = load_file(base / "model.safetensors")
    for name, record in diff.items():
        if record.factors is not None:
            change = record.factors.change(0, record.info.words).reshape(record.shape)
            tensors[name] = tensors[name] + torch.from_numpy(change)
    path.mkdir()
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_bytes((base / "config.json").read_bytes())
    return path


@pytest.mark.parametrize(("kind", "target"), [(LLAMA, "all-linear"), ("GPT2LMHeadModel", ["c_attn", "c_fc"])])
def test_whole_factors_are_what_peft_runs(tmp_path, kind, target):
    base = make_model(kind, tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=3, init_lora_weights=False, target_modules=target)
    made = train_adapter(kind, base, config, tmp_path / "adapter")
    diff = diffpack.convert(made, base=base, options={"values": "lowrank", "error": "0.01"}).diff
    assert {record.factors.values for record in diff.values()} == {"int"}
    done = diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)
    assert not done.exact
    found = answers(load_adapted(kind, base, tmp_path / "out"))
    expected = answers(load_model(kind, low_rank_alone(base, diff, tmp_path / "alone")))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, answers(load_adapted(kind, base, made)), atol=1e-5)
    for name, tensor in load_file(tmp_path / "out" / WEIGHTS).items():  # sizes of both sides are balanced
        if name.endswith("lora_A.weight"):
            other = load_file(tmp_path / "out" / WEIGHTS)[name.replace("lora_A", "lora_B")]
            ratio = tensor.norm(dim=1) / other.norm(dim=0)
            assert ((ratio > 0.49) & (ratio < 2.01)).all()


def budgeted(tmp_path, base, rank=2, noise=1e-3):
    """A diff of a change of low rank, noise beside it, a bias, a norm, and a matrix of its own kind."""
    rng = np.random.default_rng(2)
    tensors = load_file(base / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and ".layer." in name:
            left, right = rng.standard_normal((tensor.shape[0], rank)), rng.standard_normal((rank, tensor.shape[1]))
            change = 0.1 * left @ right / np.sqrt(rank) + noise * rng.standard_normal(tensor.shape)
            tensors[name] = tensor + torch.from_numpy(change.astype(np.float32))
        elif name.endswith(("layer.0.output.dense.bias", "layer.0.output.LayerNorm.weight")):
            tensors[name] = tensor + 0.1
    scattered = tensors["embeddings.word_embeddings.weight"].view(-1)[::89]
    scattered += torch.from_numpy(rng.choice([-0.5, 0.5], scattered.numel()).astype(np.float32))
    save_file(tensors, tmp_path / "tuned.safetensors")
    return diffpack.extract(base, tmp_path / "tuned.safetensors", budget="30%")


def test_what_is_beside_the_factors_is_left_out_and_told(tmp_path):
    kind = "BertModel"
    base = make_model(kind, tmp_path / "base", hidden_size=64, intermediate_size=128)
    diff = budgeted(tmp_path, base)
    paired = [name for name, record in diff.items() if record.rank]
    bare = [name for name, record in diff.items() if not record.rank and len(record.shape) == 2]
    assert paired
    assert bare
    done = diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)
    told = [note for note in done.notes if note.startswith("left out")]
    assert any("what the grid adds to factors" in note for note in told)
    assert any(bare[0] in note for note in told)
    assert {name.removesuffix(".weight") for name in paired} == set(
        json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]
    )
    merged = merge_adapter(kind, base, tmp_path / "out")
    alone = load_file(low_rank_alone(base, diff, tmp_path / "alone") / "model.safetensors")
    for name in paired:
        assert np.allclose(merged[name], alone[name].numpy(), atol=1e-6), name
    result = diffpack.load(base, diff)
    for name in ("encoder.layer.0.output.dense.bias", "encoder.layer.0.output.LayerNorm.weight"):
        assert np.array_equal(merged[name], result[name]), name
    done = diffpack.convert(diff, tmp_path / "less", to="peft-lora", base=base, options={"others": "leave"})
    (told,) = [note for note in done.notes if "LayerNorm" in note]
    assert told.startswith("left out: ")
    assert "encoder.layer.0.output.dense.bias" in told
    assert all("lora_" in name for name in load_file(tmp_path / "less" / WEIGHTS))


def test_options_of_a_factorisation_ask_for_one_of_the_rest(tmp_path):
    base = make_model("BertModel", tmp_path / "base", hidden_size=64, intermediate_size=128)
    diff = budgeted(tmp_path, base)
    diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base, options={"rank": "8", "tolerance": "0.9"})
    targets = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]
    matrices = [name for name, record in diff.items() if len(record.shape) == 2]
    assert targets == sorted(name.removesuffix(".weight") for name in matrices)


def test_other_words_for_others_are_refused(tmp_path):
    diff = diffpack.convert(adapter(tmp_path / "a", {"m.q.lora_A.weight": A, "m.q.lora_B.weight": B}), base=BASE).diff
    with pytest.raises(diffpack.errors.UsageError, match="others is keep or leave, not 'drop'"):
        diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=BASE, options={"others": "drop"})


@pytest.mark.real
def test_an_adapter_of_the_real_base(tmp_path, real_pair):
    """At most 1.02 of the adapter's bytes as it is, 0.6 at embeddings 1e-3 apart; and it comes back bit for bit."""
    base = real_pair[0]
    made = make_adapter(base, tmp_path / "adapter", steps=5)
    assert misses(rows(base, made, ("factors", "lowrank"))) == []
    diff = diffpack.convert(made, base=base).diff
    diffpack.convert(diff, tmp_path / "out", to="peft-lora", base=base)
    assert stored_bytes(tmp_path / "out") == stored_bytes(made)
    expected = embeddings(run_by_peft(base, made))
    assert np.array_equal(embeddings(run_by_peft(base, tmp_path / "out")), expected)
    diffpack.apply(base, diff, tmp_path / "merged")
    assert apart(embeddings(load(tmp_path / "merged")), expected) < 1e-5

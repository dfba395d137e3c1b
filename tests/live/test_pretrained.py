"""A base and a diff as a model of transformers: the result's bits, its class, head and labels."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import diffpack
from diffpack.errors import CorruptFileError, MissingDependencyError, UsageError, WrongBaseError
from diffpack.live import from_pretrained
from tests.tools.families import FAMILIES, LABELS, example, make_base, make_task
from tests.tools.live_models import quiet, scatter
from tests.tools.tensors import bits


class Task:
    """A base, a task of it, and the diff."""

    def __init__(self, family: str, folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        self.base = make_base(family, folder / "base", dtype)
        self.tuned = make_task(family, self.base, folder / "tuned").eval()
        self.folder = folder / "tuned"
        self.diff = folder / "task.dpk"
        diffpack.extract(self.base, self.folder, self.diff, **options)


@pytest.fixture
def bert(tmp_path: Path) -> Task:
    return Task("bert", tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_tuned_model(family: str, tmp_path: Path):
    task = Task(family, tmp_path)
    model = from_pretrained(task.base, task.diff)
    stored = diffpack.load(task.base, task.diff, framework="torch")
    own = bits(model.state_dict())
    assert set(bits(stored).values()) <= set(own.values())  # ViT's have other names in files
    assert own == bits(task.tuned.state_dict())
    assert bits(dict(model.named_buffers())) == bits(dict(task.tuned.named_buffers()))  # those not stored, too
    assert not model.training
    assert type(model).__name__ == FAMILIES[family][2]
    with torch.no_grad():
        asked = example(family)
        assert torch.equal(model(**asked).logits, task.tuned(**asked).logits)


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_as_it_is(family: str, dtype: torch.dtype, tmp_path: Path):
    task = Task(family, tmp_path, dtype)
    stored = diffpack.load(task.base, task.diff, framework="torch")
    model = from_pretrained(task.base, task.diff)
    own = bits(model.state_dict())
    assert {name: own[name] for name in stored} == bits(stored)
    assert {value.dtype for value in stored.values()} == {dtype} | {value.dtype for value in model.parameters()}


def test_what_transformers_would_widen_is_put_back(tmp_path: Path):
    """It keeps some matrices of T5 in float32 when all others are float16."""
    from safetensors.torch import load_file, save_file

    task = Task("t5", tmp_path, torch.float16)
    file = task.folder / "model.safetensors"
    narrow = {name: value.half() for name, value in load_file(file).items()}
    save_file(narrow, file, {"format": "pt"})
    diffpack.extract(task.base, task.folder, task.diff, force=True)
    own = bits(from_pretrained(task.base, task.diff).state_dict())
    assert {name: own[name] for name in narrow} == bits(narrow)


def test_mixed_dtypes_are_kept(bert: Task, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    file = bert.folder / "model.safetensors"
    mixed = {name: value.double() if name.endswith("bias") else value for name, value in load_file(file).items()}
    save_file(mixed, file, {"format": "pt"})
    diffpack.extract(bert.base, bert.folder, bert.diff, force=True)
    model = from_pretrained(bert.base, bert.diff)
    own = bits(model.state_dict())
    assert {name: own[name] for name in mixed} == bits(mixed)


def test_what_transformers_puts_together_is_what_it_loads(tmp_path: Path):
    """Experts lie apart in files and in one stack in the model: these are transformers' own, the rest is shared."""
    import transformers

    settings = {
        "vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "num_local_experts": 2,
    }  # fmt: skip
    with quiet():
        torch.manual_seed(0)
        model: Any = transformers.MixtralForCausalLM(transformers.MixtralConfig(**settings))
        model.save_pretrained(tmp_path / "base")
        scatter(model, 3, 0.1).save_pretrained(tmp_path / "tuned")
    assert any("experts.1." in name for name in diffpack.open_checkpoint(tmp_path / "tuned").tensors)
    diffpack.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "task.dpk")
    assert bits(from_pretrained(tmp_path / "base", tmp_path / "task.dpk").state_dict()) == bits(model.state_dict())


def test_it_has_the_labels_of_the_task(bert: Task):
    model = from_pretrained(bert.base, bert.diff)
    assert model.config.id2label == LABELS
    assert model.config.architectures == ["BertForSequenceClassification"]


@pytest.mark.parametrize(("family", "first", "second"), [
    ("gpt2", "transformer.wte.weight", "lm_head.weight"),
    ("t5", "shared.weight", "encoder.embed_tokens.weight"),
    ("llama", "model.embed_tokens.weight", "lm_head.weight"),
])  # fmt: skip
@pytest.mark.parametrize("share", [True, False])
def test_tied_weights_are_tied(family: str, first: str, second: str, share: bool, tmp_path: Path):
    task = Task(family, tmp_path)
    model = from_pretrained(task.base, task.diff, share=share)
    assert model.get_parameter(first) is model.get_parameter(second)


def test_equal_parameters_that_are_not_tied_have_memory_of_their_own(bert: Task):
    from safetensors.torch import load_file, save_file

    file = bert.folder / "model.safetensors"
    tensors = load_file(file)
    first, second = (f"bert.encoder.layer.{at}.intermediate.dense.weight" for at in (0, 1))
    tensors[second] = tensors[first].clone()
    save_file(tensors, file, {"format": "pt"})
    with diffpack.extract(bert.base, bert.folder, bert.diff, force=True) as diff:
        assert diff.manifest.aliases or diff.manifest.copies
    for share in (True, False):
        model = from_pretrained(bert.base, bert.diff, share=share)
        one, two = model.get_parameter(first), model.get_parameter(second)
        assert torch.equal(one, two)
        assert one.data_ptr() != two.data_ptr()


def test_a_lossy_diff_gives_its_result(bert: Task):
    diffpack.extract(bert.base, bert.folder, bert.diff, values="int8", density=0.05, force=True)
    model = from_pretrained(bert.base, bert.diff)
    own, stored = bits(model.state_dict()), diffpack.load(bert.base, bert.diff, framework="torch")
    assert {name: own[name] for name in stored} == bits(stored)


def test_other_classes_are_built_when_asked_for(bert: Task):
    import transformers

    for asked in ("BertForSequenceClassification", transformers.AutoModelForSequenceClassification):
        model = from_pretrained(bert.base, bert.diff, model_class=asked)
        assert type(model) is transformers.BertForSequenceClassification


def test_the_state_of_random_numbers_stays(bert: Task):
    torch.manual_seed(5)
    random.seed(5)
    before = torch.random.get_rng_state(), random.getstate()
    from_pretrained(bert.base, bert.diff)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()


def test_what_the_class_has_no_place_for_is_named(bert: Task):
    with pytest.raises(UsageError, match=r"BertModel has no place for classifier\.bias, classifier\.weight"):
        from_pretrained(bert.base, bert.diff, model_class="BertModel")


def test_what_the_class_lacks_is_never_drawn(bert: Task):
    with pytest.raises(UsageError, match="BertForMaskedLM has no place for"):
        from_pretrained(bert.base, bert.diff, model_class="BertForMaskedLM")
    body = bert.folder.parent / "body.dpk"
    diffpack.extract(bert.base, bert.base, body)
    with pytest.raises(UsageError, match=r"the result lacks classifier\.bias, classifier\.weight, which BertForSeq"):
        from_pretrained(bert.base, body, model_class="BertForSequenceClassification")


def test_tensors_of_other_shapes_are_refused(bert: Task):
    config = json.loads((bert.folder / "config.json").read_text())
    (bert.folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}))
    diffpack.extract(bert.base, bert.folder, bert.diff, force=True)
    with pytest.raises(UsageError, match="its tensors make no BertForSequenceClassification"):
        from_pretrained(bert.base, bert.diff)


def test_buffers_that_older_files_store_are_dropped(bert: Task):
    from safetensors.torch import load_file, save_file

    for folder, prefix in ((bert.base, ""), (bert.folder, "bert.")):
        file = folder / "model.safetensors"
        old = {f"{prefix}embeddings.position_ids": torch.arange(32)[None]}
        save_file(load_file(file) | old, file, {"format": "pt"})
    diffpack.extract(bert.base, bert.folder, bert.diff, force=True)
    assert bits(from_pretrained(bert.base, bert.diff).state_dict()) == bits(bert.tuned.state_dict())


def test_another_base_is_refused_as_load_does(bert: Task, tmp_path: Path):
    other = make_base("bert", tmp_path / "other", torch.bfloat16)
    with pytest.raises(WrongBaseError, match="not the base of"):
        from_pretrained(other, bert.diff)
    from safetensors.torch import load_file, save_file

    file = bert.base / "model.safetensors"
    tensors = load_file(file)
    tensors["embeddings.LayerNorm.bias"][3] += 1
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(WrongBaseError, match="not the base of"):
        from_pretrained(bert.base, bert.diff)


@pytest.mark.parametrize(("change", "told"), [
    ({"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}}, "no model of the type 'mine'.*never run"),
    ({"model_type": None}, "no model of the type None"),
    ({"architectures": ["MyOwnBert"]}, "no class MyOwnBert, and code of other origin is not run"),
    ({"architectures": ["BertConfig"]}, "BertConfig is no class of models"),
    ({"architectures": None}, r"names no architecture: name the class to build \(model_class=\)"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "a quantised model"),
])  # fmt: skip
def test_classes_that_transformers_lacks_are_refused(bert: Task, change: dict[str, Any], told: str):
    config = json.loads((bert.folder / "config.json").read_text())
    (bert.folder / "config.json").write_text(json.dumps({**config, **change}))
    (bert.folder / "mine.py").write_text("raise SystemExit('code of a side file was run')")
    diffpack.extract(bert.base, bert.folder, bert.diff, force=True, code=True)
    with pytest.raises(UsageError, match=told):
        from_pretrained(bert.base, bert.diff)


def test_code_beside_a_class_of_transformers_is_not_run(bert: Task):
    config = json.loads((bert.folder / "config.json").read_text())
    own = {"auto_map": {"AutoModelForSequenceClassification": "mine.Mine", "AutoConfig": "mine.Config"}}
    (bert.folder / "config.json").write_text(json.dumps({**config, **own}))
    (bert.folder / "mine.py").write_text("raise SystemExit('code of a side file was run')")
    diffpack.extract(bert.base, bert.folder, bert.diff, force=True, code=True)
    assert bits(from_pretrained(bert.base, bert.diff).state_dict()) == bits(bert.tuned.state_dict())


def test_without_a_configuration_it_says_what_is_missing(bert: Task):
    diffpack.extract(bert.base / "model.safetensors", bert.folder / "model.safetensors", bert.diff, force=True)
    with pytest.raises(UsageError, match=r"neither it nor .* has a config\.json"):
        from_pretrained(bert.base / "model.safetensors", bert.diff)
    (bert.folder / "config.json").write_text("no json")
    diffpack.extract(bert.base, bert.folder, bert.diff, force=True)
    with pytest.raises(CorruptFileError, match=r"its config\.json is no JSON"):
        from_pretrained(bert.base, bert.diff)


def test_the_trainers_modules_are_the_trainers_to_build(bert: Task):
    builder = {"builder": json.dumps({"kind": "houlsby", "size": 4})}
    diffpack.extract(bert.base, bert.folder, bert.diff, metadata=builder, force=True)
    with pytest.raises(UsageError, match=r"diffpack\.train\.load_task\(base, diff\) builds them"):
        from_pretrained(bert.base, bert.diff)


@pytest.mark.parametrize("share", [True, False])
def test_a_base_in_several_files_or_one_of_torchs(share: bool, tmp_path: Path):
    import transformers

    task = Task("gpt2", tmp_path)
    with quiet():
        base: Any = transformers.GPT2LMHeadModel.from_pretrained(task.base)
        base.save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    model = from_pretrained(tmp_path / "sharded", task.diff, share=share)
    assert bits(model.state_dict()) == bits(task.tuned.state_dict())
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "config.json").write_bytes((task.base / "config.json").read_bytes())
    torch.save(base.state_dict(), tmp_path / "torch" / "pytorch_model.bin")  # with both names of what is tied
    torch.save(task.tuned.state_dict(), tmp_path / "tuned.bin")
    (task.folder / "model.safetensors").unlink()
    (tmp_path / "tuned.bin").rename(task.folder / "pytorch_model.bin")
    diffpack.extract(tmp_path / "torch", task.folder, task.diff, force=True)
    model = from_pretrained(tmp_path / "torch", task.diff, share=share)
    assert bits(model.state_dict()) == bits(task.tuned.state_dict())
    assert model.transformer.wte.weight is model.lm_head.weight


def test_what_is_not_installed_or_not_there_is_told(bert: Task, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="the device 'nowhere' is none that torch has here"):
        from_pretrained(bert.base, bert.diff, device="nowhere")
    with pytest.raises(UsageError, match="meta holds no values"):
        from_pretrained(bert.base, bert.diff, device="meta")
    with pytest.raises(UsageError, match="its tensors make no BertForSequenceClassification"):
        from_pretrained(bert.base, bert.diff, attn_implementation="of no kind")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"live\.from_pretrained needs transformers: .*\[train\]"):
        from_pretrained(bert.base, bert.diff)


def test_how_attention_is_computed_may_be_said(bert: Task):
    assert from_pretrained(bert.base, bert.diff, attn_implementation="eager").config._attn_implementation == "eager"


def test_a_model_in_memory_is_no_base(bert: Task):
    with pytest.raises(UsageError, match="the base is a model folder"):
        from_pretrained(bert.tuned.state_dict(), bert.diff)  # type: ignore[arg-type]


def test_how_it_generates_is_kept(tmp_path: Path):
    base = make_base("gpt2", tmp_path / "base")
    tuned: Any = make_task("gpt2", base, tmp_path / "tuned")
    tuned.generation_config.temperature = 0.25
    tuned.generation_config.do_sample = True
    tuned.save_pretrained(tmp_path / "tuned")
    diffpack.extract(base, tmp_path / "tuned", tmp_path / "task.dpk")
    model = from_pretrained(base, tmp_path / "task.dpk")
    assert model.generation_config.temperature == 0.25

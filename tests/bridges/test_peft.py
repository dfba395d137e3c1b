"""PEFT adapters beyond what its own files show (those are in test_oracles): settings, refusals, SHiRA export."""

from __future__ import annotations

import re

import numpy as np
import pytest

import diffpack
from diffpack.errors import CheckpointError, CorruptFileError, UsageError, WrongBaseError
from tests.tools.adapters import BASE, A, B, adapter, shira
from tests.tools.models import bits


def lora(path, **config):
    return adapter(path, {"m.q.lora_A.weight": A, "m.q.lora_B.weight": B}, **config)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"init_lora_weights": False}, 2.0),
        ({"init_lora_weights": "gaussian"}, 2.0),
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"alpha_pattern": {"q": 1}}, 0.5),
        ({"alpha_pattern": {"m.q": 1}}, 0.5),
        ({"alpha_pattern": {"^m\\.q$": 1}}, 0.5),
        ({"alpha_pattern": {"^q": 1, "k": 9, "mq": 9}}, 2.0),
        ({"alpha_pattern": {".*q": 1}}, 0.5),
        ({"alpha_pattern": {"(k|q)": 1, "m.q": 9}}, 0.5),
        ({"alpha_pattern": {"m[.]q|v": 1}}, 0.5),
        ({"alpha_pattern": {"(a+)+$": 9}}, 2.0),
    ],
)
def test_the_scale_is_pefts(tmp_path, config, scale):
    done = diffpack.convert(lora(tmp_path / "a", **config), base=BASE)
    assert (done.format, done.exact) == ("peft-lora", False)
    assert done.diff["m.q.weight"].factors.scale == np.float32(scale)
    merged = diffpack.convert(tmp_path / "a", base=BASE, options={"values": "merged"})
    assert not merged.exact
    assert merged.diff["m.q.weight"].exact  # in steps, so that it can be composed and undone
    expected = BASE["m.q.weight"] + (scale * (B.astype(np.float64) @ A)).astype(np.float32)
    assert np.allclose(diffpack.load(BASE, done.diff)["m.q.weight"], expected, rtol=1e-6, atol=1e-7)
    assert list(done.diff) == ["m.q.weight"]


@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_trained_biases_that_were_not_saved_are_told(tmp_path, bias):
    notes = diffpack.convert(lora(tmp_path / "a", bias=bias), base=BASE).notes
    assert any("not saved these, left as in the base: m.q.bias" in note for note in notes) == (bias != "none")
    kept = {"m.q.lora_A.weight": A, "m.q.lora_B.weight": B, "m.q.base_layer.bias": np.ones(6, np.float32)}
    assert not diffpack.convert(adapter(tmp_path / "b", kept, bias=bias), base=BASE).notes


def test_the_same_adapter_gives_the_same_bytes(tmp_path):
    outputs = [diffpack.convert(lora(tmp_path / "a"), tmp_path / f"{at}.dpk", base=BASE, threads=at) for at in (1, 4)]
    first, second = (done.output.read_bytes() for done in outputs)
    assert first == second
    with pytest.raises(UsageError, match="exists already"):
        diffpack.convert(tmp_path / "a", tmp_path / "1.dpk", base=BASE)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "no magnitudes"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters.*merge_and_unload"),
        ({"use_qalora": True}, "use_qalora"),
        ({"enable_lora": [True, False]}, "enable_lora"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "changes the base itself"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base itself"),
        ({"init_lora_weights": "olora"}, "changes the base itself"),
        ({"init_lora_weights": ["pissa"]}, "changes the base itself"),
        ({"alpha_pattern": {"(?<=m)q": 1}}, "alpha_pattern: the regular expression.*write it out"),
        ({"alpha_pattern": {"(q": 1}}, "alpha_pattern: the regular expression"),
    ],
)
def test_other_kinds_of_lora_are_refused(tmp_path, config, message):
    with pytest.raises(UsageError, match=message):
        diffpack.convert(lora(tmp_path / "a", **config), tmp_path / "x.dpk", base=BASE)
    assert not (tmp_path / "x.dpk").exists()


@pytest.mark.parametrize(
    ("tensors", "kind", "message"),
    [
        ({"m.q.lora_A.weight": A}, CorruptFileError, "only one of the factors"),
        ({"m.q.lora_A.weight": A, "m.q.lora_B.weight": B[:, :1]}, WrongBaseError, "factors of"),
        ({"m.q.lora_A.weight": A, "m.q.lora_B.weight": B[:3]}, WrongBaseError, "factors of"),
        ({"m.q.lora_B.weight": B}, CorruptFileError, "only one of the factors"),
        ({"m.q.lora_A.weight": A[:0], "m.q.lora_B.weight": B[:, :0]}, CheckpointError, "without a rank: DeepSpeed"),
        ({"m.q.lora_A.weight": A * np.float32(np.inf), "m.q.lora_B.weight": B}, CorruptFileError, "not finite"),
        ({"m.q.lora_magnitude_vector": A[0]}, UsageError, "not of LoRA"),
        ({"x.lora_A.weight": A, "x.lora_B.weight": B}, WrongBaseError, "no tensors of these names: x.weight"),
        ({"m.q.weight": A}, WrongBaseError, "the base's tensor"),
    ],
)
def test_factors_that_do_not_fit_are_refused(tmp_path, tensors, kind, message):
    with np.errstate(invalid="ignore"), pytest.raises(kind, match=re.escape(message)):
        diffpack.convert(adapter(tmp_path / "a", tensors), tmp_path / "x.dpk", base=BASE)
    assert not (tmp_path / "x.dpk").exists()


def test_folders_that_are_no_adapters(tmp_path):
    with pytest.raises(UsageError, match="of no format known"):
        diffpack.convert(tmp_path, base=BASE)
    with pytest.raises(CheckpointError, match="no adapter_config"):
        diffpack.convert(tmp_path, base=BASE, from_="peft-lora")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match="no adapter_model"):
        diffpack.convert(tmp_path, base=BASE)
    with pytest.raises(UsageError, match="not of the kind SHIRA"):
        diffpack.convert(tmp_path, base=BASE, from_="peft-shira")
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="no JSON object; copy it anew"):
        diffpack.convert(tmp_path, base=BASE)


def test_parts_of_adapters_and_other_kinds_are_called_what_they_are(tmp_path):
    """Each error says what it is, and what to do."""
    whole = lora(tmp_path / "whole")
    with pytest.raises(UsageError, match=f"one file of an adapter; give its folder, {re.escape(str(whole))}"):
        diffpack.convert(whole / "adapter_model.safetensors", base=BASE)
    with pytest.raises(UsageError, match="a folder of adapters; give one: whole"):
        diffpack.convert(tmp_path, base=BASE)
    ia3 = adapter(tmp_path / "ia3", {"m.q.ia3_l": A}, "IA3")
    for options in ({}, {"from_": "peft-lora"}):
        with pytest.raises(UsageError, match=r"'IA3'; LORA and SHIRA are read.*merge_and_unload.*diffpack extract"):
            diffpack.convert(ia3, base=BASE, **options)
    (whole / "adapter_config.json").unlink()
    for options in ({}, {"from_": "peft-lora"}):
        with pytest.raises(CheckpointError, match=r"an adapter without adapter_config\.json"):
            diffpack.convert(whole, base=BASE, **options)


def test_an_adapter_of_another_base_says_which(tmp_path):
    lora(tmp_path / "a", base_model_name_or_path="bert-base-uncased")
    for base in ({"x.weight": A}, {"m.q.weight": A}):
        with pytest.raises(WrongBaseError, match=r"; the adapter says it is for bert-base-uncased$"):
            diffpack.convert(tmp_path / "a", base=base)


@pytest.mark.parametrize(
    ("base", "named"),
    [
        ({"q.weight": "m.q.weight"}, "q.weight"),
        ({"a.b.m.q.weight": "m.q.weight"}, "a.b.m.q.weight"),
        ({"m.q.weight": "m.q.weight", "other.m.q.weight": "m.q.weight"}, "m.q.weight"),
    ],
)
def test_a_prefix_more_or_less_is_found(tmp_path, base, named):
    done = diffpack.convert(lora(tmp_path / "a"), base={name: BASE[own] for name, own in base.items()})
    assert list(done.diff) == [named]
    assert any("taken as the same" in note for note in done.notes) == (named != "m.q.weight")


def test_a_prefix_that_may_be_two_is_asked_for(tmp_path):
    base = {"a.m.q.weight": BASE["m.q.weight"], "b.m.q.weight": BASE["m.q.weight"]}
    with pytest.raises(
        UsageError, match=r"may be several tensors of the base; say which by --rename, one of a\.=, b\.="
    ):
        diffpack.convert(lora(tmp_path / "a"), base=base)
    done = diffpack.convert(tmp_path / "a", base=base, rename=[("b.", "")])
    assert list(done.diff) == ["b.m.q.weight"]


@pytest.mark.parametrize("path", ["{}", "_orig_mod.{}", "m._fsdp_wrapped_module.{}"])
@pytest.mark.parametrize("name", ["", ".default", ".mine"])
def test_names_of_state_dicts_are_those_peft_saves(tmp_path, path, name):
    """With the adapter's own name, and what torch puts around modules."""
    wanted = diffpack.convert(lora(tmp_path / "plain"), base=BASE).diff
    module = path.replace("{}", "q" if path.startswith("m.") else "m.q")
    tensors = {f"{module}.lora_A{name}.weight": A, f"{module}.lora_B{name}.weight": B}
    found = diffpack.convert(adapter(tmp_path / "a", tensors), base=BASE).diff
    assert found.manifest.result.fingerprint == wanted.manifest.result.fingerprint


def test_several_adapters_in_one_file_are_refused(tmp_path):
    tensors = {f"m.q.lora_{end}.{name}.weight": x for end, x in (("A", A), ("B", B)) for name in ("one", "two")}
    with pytest.raises(UsageError, match=r"holds several adapters \(one, two\)"):
        diffpack.convert(adapter(tmp_path / "a", tensors), base=BASE)


TOKENS = {"m.q.token_adapter.trainable_tokens_delta": A, "m.v.lora_A.weight": B.T, "m.v.lora_B.weight": A.T}


@pytest.mark.parametrize("rows", [[5, 0], {"q": [5, 0]}, {"m.q": [5, 0], "q": [1, 2]}])
def test_rows_of_trained_tokens_are_replaced(tmp_path, rows):
    done = diffpack.convert(adapter(tmp_path / "a", TOKENS, trainable_token_indices=rows), base=BASE)
    expected = BASE["m.q.weight"].copy()
    expected[[5, 0]] = A
    assert bits({"m.q.weight": diffpack.load(BASE, done.diff)["m.q.weight"]}) == bits({"m.q.weight": expected})


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (None, CorruptFileError), ([1, 1], CorruptFileError), ([-1, 2], CorruptFileError),
        ([True, 2], CorruptFileError), ({"k": [1, 2]}, CorruptFileError),
        ([1], WrongBaseError), ([1, 6], WrongBaseError),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused(tmp_path, rows, kind):
    with pytest.raises(kind):
        diffpack.convert(adapter(tmp_path / "a", TOKENS, trainable_token_indices=rows), base=BASE)


def test_shira_indices_are_rows_and_columns(tmp_path):
    for dtype in (np.int32, np.float32):  # PEFT writes floats on Windows
        indices = np.array([[5, 0, 2], [3, 1, 2]], dtype)
        done = diffpack.convert(shira(tmp_path / "a", indices, np.array([1, 2, 3], np.float32)), base=BASE)
        expected = BASE["m.q.weight"].copy()
        expected[[5, 0, 2], [3, 1, 2]] += np.array([1, 2, 3], np.float32)
        assert bits(diffpack.load(BASE, done.diff)) == bits({**BASE, "m.q.weight": expected})
        assert (done.exact, done.diff["m.q.weight"].values.tolist()) == (False, [2, 3, 1])


@pytest.mark.parametrize(
    "indices",
    [[[6], [0]], [[0], [4]], [[-1], [0]], [[0, 0], [1, 1]], [[0], [0.5]], [[0], [np.nan]], [[0], [2**31 - 1]]],
)
def test_hostile_shira_indices_are_refused(tmp_path, indices):
    array = np.array(indices)
    array = array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
    with pytest.raises(CorruptFileError):
        diffpack.convert(shira(tmp_path / "a", array, np.ones(array.shape[1], np.float32)), base=BASE)
    with pytest.raises(CorruptFileError):
        diffpack.convert(shira(tmp_path / "a", array, np.ones(array.shape[1] + 1, np.float32)), base=BASE)


def test_a_shira_adapter_there_and_back(tmp_path):
    tuned = {name: array.copy() for name, array in BASE.items()}
    tuned["m.q.weight"][[0, 3], [1, 2]] += np.float32(0.5)
    tuned["m.v.weight"][2] -= np.float32(0.125)
    diff = diffpack.extract(BASE, tuned, values="f32")
    done = diffpack.convert(diff, tmp_path / "a", to="peft-shira", base=BASE)
    assert done.exact
    back = diffpack.convert(tmp_path / "a", base=BASE).diff
    assert bits(diffpack.load(BASE, back)) == bits(tuned)
    for name, record in diff.items():
        assert np.array_equal(back[name].values, record.values)
        assert np.array_equal(back[name].positions, record.positions)


@pytest.mark.parametrize("given", [True, False])
def test_a_shira_adapter_without_the_zeros_a_diff_adds_is_lossy(tmp_path, given):
    base = {"w.weight": np.full((40, 40), -0.0, np.float32)}
    tuned = {"w.weight": base["w.weight"].copy()}
    tuned["w.weight"][:2] = 1
    diff = diffpack.extract(base, tuned, rule="random 3", density=0.05, values="f32")
    done = diffpack.convert(diff, tmp_path / "a", to="peft-shira", base=base if given else None)
    assert not done.exact
    assert "lossy" in done.notes[-1]


def test_an_exact_diff_becomes_a_shira_adapter_only_as_lossy(tmp_path):
    base = {"w.weight": np.full((8, 8), 1e8, np.float32)}
    tuned = {"w.weight": base["w.weight"].copy()}
    tuned["w.weight"][0, 0] = 1e-30  # no float32 leads there from 1e8
    done = diffpack.convert(diffpack.extract(base, tuned), tmp_path / "a", to="peft-shira", base=base)
    assert not done.exact
    assert "lossy" in done.notes[-1]


def test_what_shira_cannot_hold_is_refused(tmp_path):
    for name, message in (("m.q.bias", "no float matrix"), ("m.q.weight", "more than")):
        tuned = {key: array + 1 if key == name else array for key, array in BASE.items()}
        with pytest.raises(UsageError, match=message):
            diffpack.convert(diffpack.extract(BASE, tuned), tmp_path / "a", to="peft-shira", base=BASE)
    with pytest.raises(UsageError, match="changes nothing"):
        diffpack.convert(diffpack.extract(BASE, BASE), tmp_path / "a", to="peft-shira", base=BASE)
    assert not (tmp_path / "a").exists()


CONV1D = {"h.0.attn.c_attn.weight": np.ones((4, 12), np.float32), "h.0.attn.c_proj.weight": np.ones((4, 4), np.float32)}


@pytest.mark.parametrize(
    ("name", "others", "said"),
    [
        ("model.embed_tokens.weight", {}, "model.embed_tokens.weight is an embedding"),
        ("transformer.wte.weight", {}, "transformer.wte.weight is an embedding"),
        ("bert.embeddings.position_embeddings.weight", {}, "position_embeddings.weight is an embedding"),
        ("h.0.attn.c_attn.weight", CONV1D, "c_attn.weight is of transformers' Conv1D"),
        ("h.0.attn.c_proj.weight", CONV1D, "c_proj.weight is of transformers' Conv1D"),
    ],
)
def test_what_peft_does_not_load_as_shira_is_refused(tmp_path, name, others, said):
    base = {name: np.ones((6, 4), np.float32), **others}
    tuned = {key: array.copy() for key, array in base.items()}
    tuned[name][2, 1] = 3
    diff = diffpack.extract(base, tuned)
    with pytest.raises(UsageError, match=re.escape(said)):
        diffpack.convert(diff, tmp_path / "adapter", to="peft-shira", base=base)
    assert not (tmp_path / "adapter").exists()


def test_what_may_be_no_linear_layer_is_said(tmp_path):
    base = {"h.0.mix.weight": np.ones((6, 4), np.float32)}
    tuned = {"h.0.mix.weight": np.eye(6, 4, dtype=np.float32)}
    done = diffpack.convert(diffpack.extract(base, tuned), tmp_path / "adapter", to="peft-shira", base=base, options={})
    assert any("a diff does not tell whether these are" in note for note in done.notes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [({}, False), ({"r": 8}, True), ({"r": 8, "rank_pattern": {"q": 2}}, False), ({"r": None}, False)],
)
def test_settings_of_another_rank_than_the_factors_are_told(tmp_path, settings, told):
    """Another adapter's, or edited: PEFT does not load them, and by them the scale would be another one."""
    notes = diffpack.convert(lora(tmp_path / "a", **settings), base=BASE).notes
    assert any("ranks that adapter_config.json does not name (8): m.q (2)" in note for note in notes) == told

"""mergekit's configuration files give what mergekit makes of them; what is no merge of diffs is refused by name.

mergekit's results are frozen in `tests/oracles` by `make oracle`.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import diffpack
from diffpack.algebra.merge import read_config
from diffpack.errors import UsageError
from tests.tools import ORACLES
from tests.tools.command_line import fails, ok
from tests.tools.models import write_safetensors

CASES = json.loads((ORACLES / "configs.json").read_text())["cases"]
with np.load(ORACLES / "configs.npz") as _file:
    ARRAYS = {name: _file[name] for name in _file.files}
MODELS = ("base", "one", "two")
TIES = {
    "merge_method": "ties",
    "base_model": "base.safetensors",
    "models": [{"model": "one.dpk"}, {"model": "two.dpk"}],
    "parameters": {"weight": 0.5, "density": 0.5},
}


def arrays(prefix):
    return {name.removeprefix(prefix): array for name, array in ARRAYS.items() if name.startswith(prefix)}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The models as folders and as files, and diffs of them."""
    monkeypatch.chdir(tmp_path)
    for name in MODELS:
        (tmp_path / name).mkdir()
        for path in (tmp_path / name / "model.safetensors", tmp_path / f"{name}.safetensors"):
            write_safetensors(path, arrays(f"{name}."))
        if name != "base":
            diffpack.extract(tmp_path / "base.safetensors", tmp_path / f"{name}.safetensors", f"{name}.dpk")
    return tmp_path


@pytest.mark.parametrize("kind", ["folders", "diffs"])
@pytest.mark.parametrize("at", range(len(CASES)), ids=[case["what"] for case in CASES])
def test_a_file_gives_what_mergekit_gives(at, kind, work):
    text = CASES[at]["config"]
    asked = yaml.safe_load(text)
    base = ["--base", "base"]
    if kind == "diffs":
        for name in ("one", "two"):
            text = text.replace(f"model: {name}\n", f"model: {name}.dpk\n")
    elif asked.get("base_model") in MODELS:
        base = []
    (work / "merge.yml").write_text(text)
    ok("merge", "--config", "merge.yml", *base, "-o", "merged.dpk")
    sent = asked["base_model"] if not base else "base"
    found, expected = diffpack.load(work / sent, work / "merged.dpk"), arrays(f"output.{at}.")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.allclose(found[name], array, rtol=3e-6, atol=3e-7), name


def test_models_are_found_beside_the_file_and_the_base_where_the_line_says(work, monkeypatch):
    (work / "merge.yml").write_text(yaml.safe_dump(TIES | {"base_model": "organisation/model"}))
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    fails(1, "organisation/model", "merge", "--config", "../merge.yml", "-o", "m.dpk")
    ok("merge", "--config", "../merge.yml", "--base", "../base", "-o", "m.dpk")
    read = read_config("../merge.yml")
    straight = diffpack.merge(read.models, base=work / "base", **read.options)
    assert straight.chunks == diffpack.open("m.dpk").chunks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"merge_method": "model_stock"}, "merge_method: 'model_stock' does not merge changes"),
        ({"merge_method": None}, "merge_method: None"),
        ({"modules": {}}, "modules: not supported"),
        ({"paramters": {}}, "paramters: not supported"),
        ({"chat_template": "auto"}, "chat_template: not supported"),
        ({"tokenizer_source": "union"}, "tokenizer: a merge of diffs keeps tokens"),
        ({"tokenizer": {"source": "base", "tokens": {}}}, "tokenizer: a merge"),
        ({"models": []}, "models: a list of models is missing"),
        ({"models": ["one.dpk"]}, "models: a list of models is missing"),
        ({"models": [{"model": "one.dpk", "layer_range": [0, 3]}]}, "layer_range: not supported"),
        ({"models": [{"model": "one.dpk"}, {"model": "one.dpk"}]}, "one of them stands there twice"),
        ({"models": [{"model": "one+adapter"}]}, "one+adapter: an adapter"),
        ({"models": [{"model": "base.safetensors"}]}, "there is none but the base"),
        ({"base_model": "one.dpk"}, "base_model: one.dpk is a diff"),
        ({"parameters": {"densty": 0.5}}, "parameters: densty: not supported"),
        ({"parameters": {"weight": "much"}}, "weight: 'much' is not a number"),
        ({"parameters": {"weight": True}}, "weight: True is not a number"),
        ({"parameters": {"weight": [{"filter": "mlp", "value": 1}]}}, "filters need a value for the rest"),
        ({"parameters": {"weight": [{"filter": "mlp"}]}}, "is not a filter with a value"),
        ({"parameters": {"normalize": [True]}}, "normalize is true or false"),
        ({"parameters": {"rescale": True}}, "rescale: ties is not rescaled"),
        ({"parameters": [1]}, "is not a mapping"),
        ({"dtype": "int8"}, "dtype: 'int8' is none of"),
        ({"merge_method": "slerp"}, "models: slerp takes the base_model and one other"),
        ({"merge_method": "slerp", "base_model": "one.dpk"}, "parameters: t is missing"),
        ({"merge_method": "slerp", "base_model": None}, "base_model: slerp needs it"),
        ({"merge_method": "linear", "parameters": {"weight": 1, "normalize": False}}, "task_arithmetic adds up"),
        ({"models": [{"model": "one.dpk", "parameters": {"lambda": 1}}]}, "lambda is for the whole merge"),
    ],
)  # fmt: skip
def test_what_is_no_merge_of_diffs_is_refused_by_name(change, said, tmp_path):
    path = tmp_path / "merge.yml"
    path.write_text(yaml.safe_dump(TIES | change))
    with pytest.raises(UsageError) as raised:
        read_config(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)


def test_slices_are_taken_if_they_are_the_whole_model(work):
    def sliced(*ranges, **more):
        sources = [
            {"model": f"{name}.dpk", "layer_range": list(found)}
            for name, found in zip(("one", "two"), ranges, strict=True)
        ]
        asked = {name: value for name, value in TIES.items() if name != "models"}
        (work / "merge.yml").write_text(yaml.safe_dump(asked | {"slices": [{"sources": sources, **more}]}))
        return ["merge", "--config", "merge.yml", "-o", "m.dpk", "--force"]

    ok(*sliced((0, 3), (0, 3)))
    fails(2, "has not 2 layers", *sliced((0, 2), (0, 2)))
    fails(2, "layers left out or moved", *sliced((0, 3), (1, 4)))
    fails(2, "residual_weight: not supported", *sliced((0, 3), (0, 3), residual_weight=0.1))


def test_files_that_are_no_configuration_are_refused(work):
    for text, said in (("a: [", "no YAML"), ("a: 1\n---\nb: 2\n", "several documents"), ("- a\n", "no configuration")):
        (work / "merge.yml").write_text(text)
        fails(2, said, "merge", "--config", "merge.yml", "-o", "m.dpk")
    fails(2, "does not exist", "merge", "--config", "nothing.yml", "-o", "m.dpk")


def test_words_that_mean_nothing_to_a_method_are_told(work):
    (work / "merge.yml").write_text(yaml.safe_dump(TIES | {"merge_method": "linear", "base_model": None}))
    notes = json.loads(ok("merge", "--config", "merge.yml", "--base", "base", "-o", "m.dpk", "--json"))["notes"]
    assert "parameters: density means nothing to linear, here or in mergekit" in notes


def test_the_line_and_the_file_do_not_both_say_how(work):
    (work / "merge.yml").write_text(yaml.safe_dump(TIES))
    line = ["merge", "--config", "merge.yml", "-o", "m.dpk"]
    fails(2, "--config names the diffs itself", *line, "one.dpk")
    for option in (["--method", "ties"], ["--density", "0.5"], ["--lambda", "1"], ["--weight", "one.dpk=1"]):
        fails(2, f"--config says what {option[0]} says", *line, *option)
    ok(*line, "--take", "lm_head=one.dpk", "--values", "f16")
    assert diffpack.open("m.dpk")["lm_head.weight"].exact


def test_a_dtype_that_is_not_the_diffs_is_refused(work):
    for member in ("dtype", "out_dtype"):
        (work / "merge.yml").write_text(yaml.safe_dump(TIES | {member: "bfloat16"}))
        fails(2, "as F32, not BF16", "merge", "--config", "merge.yml", "-o", "m.dpk")
    (work / "merge.yml").write_text(yaml.safe_dump(TIES | {"dtype": "bfloat16", "out_dtype": "float32"}))
    ok("merge", "--config", "merge.yml", "-o", "m.dpk")


def test_models_that_are_not_there_are_named(work):
    (work / "merge.yml").write_text(yaml.safe_dump(TIES | {"models": [{"model": "organisation/tuned"}]}))
    fails(2, "organisation/tuned: no such diff or checkpoint here", "merge", "--config", "merge.yml", "-o", "m.dpk")
    (work / "merge.yml").write_text(yaml.safe_dump(TIES | {"base_model": None, "models": [{"model": "one"}]}))
    fails(2, "one: name the base", "merge", "--config", "merge.yml", "-o", "m.dpk")

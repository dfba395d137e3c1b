"""What is a task's own is not merged unasked: it is taken from one diff, with its configuration, left out, or mixed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError, UsageError
from tests.tools.models import bits, write_safetensors

HEAD = ("classifier.bias", "classifier.weight")


def body(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"encoder.weight": (12, 8), "embeddings.token_type.weight": (2, 8), "embeddings.word.weight": (20, 8)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def head(rows, seed):
    rng = np.random.default_rng(seed)
    arrays = {"classifier.weight": rng.standard_normal((rows, 8)), "classifier.bias": rng.standard_normal(rows)}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def tuned(base, seed, **more):
    rng = np.random.default_rng(seed)
    changed = {
        name: array + (rng.random(array.shape) < 0.3).astype(np.float32) * np.float32(seed / 8)
        for name, array in base.items()
    }
    return changed | more


def write(folder, arrays, labels=None, **config):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", arrays)
    named = {} if labels is None else {"id2label": {str(at): name for at, name in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **named, **config}))
    (folder / "tokenizer.json").write_text(json.dumps({"of": folder.name}))
    return folder


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A function: the folders of a base and of two models with heads -> the paths of their diffs."""
    monkeypatch.chdir(tmp_path)

    def make(first, second, labels=(("neg", "pos"), ("ham", "spam")), base_head=None):
        base = body() | (base_head or {})
        write(tmp_path / "base", base)
        for name, own, names, seed in zip("ab", (first, second), labels, (1, 2), strict=True):
            write(tmp_path / name, tuned(base, seed) | own, names)
            diffpack.extract("base", name, f"{name}.dpk")
        return ["a.dpk", "b.dpk"]

    return make


def of(folder):
    return diffpack.load(folder, diffpack.extract(folder, folder))


def test_new_heads_of_equal_size_are_not_averaged_unasked(two):
    diffs = two(head(2, 1), head(2, 2))
    with pytest.raises(UsageError, match=r"classifier\.bias \(new in the result\), classifier\.weight") as raised:
        diffpack.merge(diffs, base="base", method="linear")
    for way in ("--take 'classifier.*=a.dpk'", "--exclude", "--mix"):
        assert way in str(raised.value)


def test_a_head_is_taken_bit_for_bit_with_its_configuration(two, tmp_path):
    diffs = two(head(2, 1), head(2, 2))
    notes = []
    merged = diffpack.merge(diffs, "m.dpk", base="base", method="linear", take={"classifier": 1}, notes=notes)
    found = diffpack.load("base", merged)
    assert bits({name: found[name] for name in HEAD}) == bits({name: of("b")[name] for name in HEAD})
    assert np.allclose(found["encoder.weight"], (of("a")["encoder.weight"] + of("b")["encoder.weight"]) / 2, atol=1e-6)
    diffpack.apply("base", "m.dpk", "out")
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert any("b.dpk" in note for note in notes)
    assert merged.manifest.recipe["take"] == "classifier=b.dpk"


def test_a_head_that_is_excluded_is_left_as_the_base_has_it(two, tmp_path):
    diffs = two(head(2, 1), head(2, 2))
    merged = diffpack.merge(diffs, "m.dpk", base="base", exclude=["classifier*"])
    assert diffpack.load("base", merged).keys() == body().keys()
    diffpack.apply("base", "m.dpk", "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "base" / "config.json").read_bytes()
    unsealed = diffpack.merge([diffpack.extract("base", name, values="f32") for name in "ab"], exclude=["classifier*"])
    assert unsealed.manifest.result.tensors == merged.manifest.result.tensors
    assert unsealed.manifest.result.bytes == merged.manifest.result.bytes


def test_heads_are_averaged_if_the_user_says_so(two):
    diffs = two(head(2, 1), head(2, 2))
    found = diffpack.load("base", diffpack.merge(diffs, base="base", weights=[3, 1], mix=["classifier"]))
    expected = (3 * head(2, 1)["classifier.weight"] + head(2, 2)["classifier.weight"]) / 4
    assert np.allclose(found["classifier.weight"], expected, atol=1e-6)


def test_heads_of_the_same_labels_are_averaged_and_that_is_told(two, tmp_path):
    diffs = two(head(2, 1), head(2, 2), labels=(("neg", "pos"),) * 2)
    notes = []
    merged = diffpack.merge(diffs, "m.dpk", base="base", method="linear", notes=notes)
    expected = (head(2, 1)["classifier.bias"] + head(2, 2)["classifier.bias"]) / 2
    assert np.allclose(diffpack.load("base", merged)["classifier.bias"], expected, atol=1e-6)
    assert any("classifier.bias" in note for note in notes)
    diffpack.apply("base", "m.dpk", "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "neg", "1": "pos"}


@pytest.mark.parametrize("labels", [(("LABEL_0", "LABEL_1"),) * 2, (None, None), (("neg", "pos"), None)])
def test_labels_nobody_named_say_nothing(two, labels):
    with pytest.raises(UsageError, match="not merged unasked"):
        diffpack.merge(two(head(2, 1), head(2, 2), labels=labels), base="base")


def test_the_same_head_in_all_diffs_is_taken_over(two):
    diffs = two(head(2, 1), head(2, 1))
    found = diffpack.load("base", diffpack.merge(diffs, base="base", weights=[0.3, 0.9]))
    assert bits({name: found[name] for name in HEAD}) == bits(head(2, 1))


def test_a_classifier_of_the_base_is_not_merged_where_the_labels_differ(two):
    diffs = two(head(2, 1), head(2, 2), base_head=head(2, 0))
    with pytest.raises(UsageError, match=r"classifier\.weight \(the labels are ham/spam and neg/pos\)"):
        diffpack.merge(diffs, base="base", method="linear")
    found = diffpack.load("base", diffpack.merge(diffs, base="base", take={"classifier": "a.dpk"}))
    assert bits({name: found[name] for name in HEAD}) == bits(head(2, 1))
    mixed = diffpack.load("base", diffpack.merge(diffs, base="base", method="linear", mix=["classifier"]))
    middle = (head(2, 1)["classifier.weight"] + head(2, 2)["classifier.weight"]) / 2
    assert np.allclose(mixed["classifier.weight"], middle, atol=1e-6)


def test_a_classifier_of_the_base_is_merged_where_they_do_not(two):
    diffs = two(head(2, 1), head(2, 2), labels=(("neg", "pos"),) * 2, base_head=head(2, 0))
    found = diffpack.load("base", diffpack.merge(diffs, base="base", method="linear"))
    middle = (head(2, 1)["classifier.weight"] + head(2, 2)["classifier.weight"]) / 2
    assert np.allclose(found["classifier.weight"], middle, atol=1e-6)


@pytest.mark.parametrize("based", [True, False])
def test_heads_of_different_size_are_taken_or_excluded(two, based):
    diffs = two(head(2, 1), head(3, 2), base_head=head(2, 0) if based else None)
    with pytest.raises(UsageError, match=r"classifier\.bias: the diffs make it .* cannot be merged .*--take") as raised:
        diffpack.merge(diffs, base="base", mix=["classifier"])
    assert "--exclude" in str(raised.value)
    for at, own in enumerate((head(2, 1), head(3, 2))):
        found = diffpack.load("base", diffpack.merge(diffs, base="base", take={"classifier*": at}))
        assert bits({name: found[name] for name in HEAD}) == bits(own)
    left = diffpack.load("base", diffpack.merge(diffs, base="base", exclude=["classifier"]))
    assert bits({name: left[name] for name in HEAD if name in left}) == bits(head(2, 0) if based else {})


def test_a_head_that_one_diff_alone_brings_is_its_own_with_its_configuration(two, tmp_path):
    diffs = two({}, head(3, 2))
    diffpack.merge(diffs, "m.dpk", base="base", method="linear")
    diffpack.apply("base", "m.dpk", "out")
    assert bits({name: of("out")[name] for name in HEAD}) == bits(head(3, 2))
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


def test_a_head_that_one_diff_alone_resizes_is_its_own(two):
    diffs = two({}, head(3, 2), base_head=head(2, 0))
    with pytest.raises(UsageError, match=r"classifier\.weight: the diffs make it"):
        diffpack.merge(diffs, base="base", method="linear")  # a.dpk changes its own two rows
    alone = diffpack.extract("base", tuned(body(), 1) | head(2, 0))
    found = diffpack.load("base", diffpack.merge([alone, "b.dpk"], base="base", method="linear"))
    assert bits({name: found[name] for name in HEAD}) == bits(head(3, 2))


def test_without_heads_the_side_files_are_the_base_s(two, tmp_path):
    diffpack.merge(two({}, {}), "m.dpk", base="base")
    diffpack.apply("base", "m.dpk", "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "base" / "tokenizer.json").read_bytes()


def test_what_is_taken_is_what_the_diff_makes_of_it(two):
    """Lossy, unchanged, removed, tied: as it is in the diff."""
    two({}, {})
    base, mine, theirs = body(), tuned(body(), 1), tuned(body(), 2)
    mine["encoder.weight"] = base["encoder.weight"]
    del mine["embeddings.token_type.weight"]
    mine["out.weight"] = mine["embeddings.word.weight"].copy()
    theirs["out.weight"] = theirs["embeddings.word.weight"] * 2
    for values in ("exact", "f16", "int8"):
        diffs = [diffpack.extract(base, model, values=values) for model in (mine, theirs)]
        alone = diffpack.load(base, diffs[0])
        found = diffpack.load(base, diffpack.merge(diffs, base=base, take={"*": 0}))
        assert bits(found) == bits(alone)
    with pytest.raises(UsageError, match=r"out\.weight is tied to embeddings\.word\.weight"):
        diffpack.merge(diffs, base=base, take={"out": 0})
    with pytest.raises(UsageError, match=r"has no out\.weight"):
        diffpack.merge([diffpack.extract(base, tuned(base, 3)), diffs[1]], base=base, take={"out": 0})


def test_wishes_that_cannot_be_met_are_refused(two):
    diffs = two(head(2, 1), head(2, 2))
    for wishes, said in (
        ({"exclude": ["clasifier"]}, "exclude: no tensor is called clasifier"),
        ({"take": {"clasifier": 0}}, "take: no tensor is called clasifier"),
        ({"mix": ["head*"]}, r"mix: no tensor is called head\*"),
        ({"take": {"classifier": 2}}, "not one of the 2 diffs"),
        ({"take": {"classifier": "c.dpk"}}, "not one of the 2 diffs"),
        ({"take": {"classifier": 0, "classifier.bias": 1}}, "from several diffs"),
        ({"take": {"classifier": 0}, "exclude": ["*bias"]}, "both excluded and taken"),
        ({"exclude": "classifier"}, "exclude is a list"),
        ({"exclude": [""]}, "exclude is a list"),
    ):
        with pytest.raises(UsageError, match=said):
            diffpack.merge(diffs, base="base", **wishes)


def test_a_diff_that_is_coded_against_its_base_needs_it_to_be_taken_from(two):
    diffs = two(head(2, 1), head(2, 2))
    diffpack.extract("base", "a", "s.dpk", positions="levels", profile="smallest")
    merged = diffpack.merge(["s.dpk", diffs[1]], base="base", take={"*": 0})
    assert bits(diffpack.load("base", merged)) == bits(of("a"))
    budget = diffpack.extract("base", "a", budget=1500)
    lossy = diffpack.merge([budget, diffs[1]], base="base", take={"*": 0})
    assert bits(diffpack.load("base", lossy)) == bits(diffpack.load("base", budget))
    with pytest.raises(BaseNeededError):
        diffpack.merge(["s.dpk", diffs[1]], take={"*": 0})


def test_transformers_loads_what_was_merged(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    config = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**config, intermediate_size=8)).save_pretrained("base")
    for name, labels in (("a", ("no", "yes")), ("b", ("x", "y", "z"))):
        named = {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
        made = transformers.BertConfig(**config, intermediate_size=8, **named)
        model = transformers.BertForSequenceClassification(made)
        model.bert.load_state_dict(transformers.BertModel.from_pretrained("base").state_dict())
        with torch.no_grad():
            model.bert.encoder.layer[0].output.dense.weight += 0.1
        model.save_pretrained(name)
        diffpack.extract("base", name, f"{name}.dpk")
    diffpack.merge(["a.dpk", "b.dpk"], "m.dpk", base="base", method="linear", take={"classifier": "b.dpk"})
    diffpack.apply("base", "m.dpk", "out")
    model = transformers.AutoModelForSequenceClassification.from_pretrained("out")
    assert model.config.id2label == {0: "x", 1: "y", 2: "z"}
    own = transformers.AutoModelForSequenceClassification.from_pretrained("b")
    assert torch.equal(model.classifier.weight, own.classifier.weight)


def test_the_way_out_for_several_tensors_of_a_module_is_one_pattern(two):
    diffs = two(head(2, 1), head(3, 2))
    with pytest.raises(UsageError, match=r"and 1 more such tensors.*--take 'classifier\.\*=a\.dpk'"):
        diffpack.merge(diffs, base="base", method="linear")
    assert set(HEAD) <= set(diffpack.merge(diffs, base="base", method="linear", take={"classifier.*": 0}))

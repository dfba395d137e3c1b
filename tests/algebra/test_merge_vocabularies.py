"""Vocabularies of different sizes become the union of their rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.models import bits, write_safetensors

ROWS, WIDTH = 12, 4
NAMES = ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias")


def base():
    rng = np.random.default_rng(0)
    shapes = {NAMES[0]: (ROWS, WIDTH), NAMES[1]: (ROWS, WIDTH), NAMES[2]: (ROWS,), "norm.weight": (WIDTH,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def grown(seed, rows):
    """The base with a step added everywhere, and rows of their own number behind."""
    found = {name: array + np.float32(seed) for name, array in base().items()}
    rng = np.random.default_rng(seed)
    for name in NAMES:
        shape = (max(rows, 0), *found[name].shape[1:])
        found[name] = np.concatenate([found[name], rng.standard_normal(shape).astype(np.float32)])[: ROWS + rows]
    return found


def merged(models, **options):
    own = {"method": "linear", "weights": [1.0, 3.0, 2.0][: len(models)], **options}
    diffs = [diffpack.extract(base(), model) for model in models]
    found = diffpack.merge(diffs, base=base(), **own)
    return diffpack.load(base(), found), found


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties", "slerp"])
def test_a_row_beyond_the_base_is_that_of_the_diff_that_has_it(method):
    models = [grown(1, 2), grown(2, 5)]
    options = {"slerp": {"t": 0.25, "weights": None}, "ties": {"density": 0.5}, "dare_ties": {"density": 0.5}}
    shares = (0.75, 0.25) if method == "slerp" else (0.25, 0.75)
    found, diff = merged(models, method=method, **options.get(method, {}))
    for name in NAMES:
        assert found[name].shape == models[1][name].shape
        assert bits({name: found[name][ROWS + 2 :]}) == bits({name: models[1][name][ROWS + 2 :]})
        both = shares[0] * models[0][name][ROWS : ROWS + 2] + shares[1] * models[1][name][ROWS : ROWS + 2]
        assert np.allclose(found[name][ROWS : ROWS + 2], both, atol=1e-6)
        if method == "linear":
            assert np.allclose(found[name][:ROWS], base()[name] + 1.75, atol=1e-6)
        if method == "task_arithmetic":
            assert np.allclose(found[name][:ROWS], base()[name] + 7, atol=1e-5)
    assert diff.manifest.result.entries == sum(array.size for array in found.values())


def test_a_diff_that_keeps_the_base_s_rows_says_nothing_of_new_ones():
    models = [grown(1, 0), grown(2, 3), grown(4, -5)]
    found, _ = merged(models)
    for name in NAMES:
        assert bits({name: found[name][ROWS:]}) == bits({name: models[1][name][ROWS:]})
        assert np.allclose(found[name][: ROWS - 5], base()[name][: ROWS - 5] + (1 + 6 + 8) / 6, atol=1e-6)
        assert np.allclose(found[name][ROWS - 5 : ROWS], base()[name][ROWS - 5 :] + (1 + 6) / 6, atol=1e-6)


def test_rows_of_several_are_averaged_even_if_weights_add_up_to_nothing():
    models = [grown(1, 2), grown(2, 2)]
    found, _ = merged(models, method="task_arithmetic", weights=[1, -1])
    middle = (models[0][NAMES[0]][ROWS:] + models[1][NAMES[0]][ROWS:]) / 2
    assert np.allclose(found[NAMES[0]][ROWS:], middle, atol=1e-6)


def test_a_weight_does_not_scale_the_rows_that_one_diff_alone_has():
    models = [grown(1, 0), grown(2, 3)]
    found, _ = merged(models, method="task_arithmetic", weights=[0.5, 0.1], values="f32")
    assert bits({"": found[NAMES[0]][ROWS:]}) == bits({"": models[1][NAMES[0]][ROWS:]})


def test_what_is_no_vocabulary_is_not_united():
    own = {"proj.weight": np.ones((ROWS + 1, WIDTH), np.float32)}
    models = [own | {"proj.weight": np.full((rows, WIDTH), 2, np.float32)} for rows in (ROWS + 2, ROWS + 3)]
    with pytest.raises(UsageError, match=r"proj\.weight: the diffs make it"):
        diffpack.merge([diffpack.extract(own, model) for model in models], base=own)


def test_the_order_of_the_diffs_changes_no_bit():
    models = [grown(1, 2), grown(2, 5), grown(3, 0)]
    found, _ = merged(models)
    other, _ = merged(models[::-1], weights=[2.0, 3.0, 1.0])
    assert bits(found) == bits(other)


# Tokens


def folder(path, arrays, tokens):
    path.mkdir()
    write_safetensors(path / "model.safetensors", arrays)
    (path / "config.json").write_text(json.dumps({"vocab_size": len(arrays[NAMES[0]])}))
    added = [{"id": ROWS + at, "content": token} for at, token in enumerate(tokens)]
    (path / "tokenizer.json").write_text(json.dumps({"added_tokens": added, "model": {"vocab": {"a": 0}}}))


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "base", base(), [])
    return tmp_path


def test_rows_that_are_other_tokens_are_not_averaged_unasked(work):
    for name, seed, tokens in (("a", 1, ["<x>", "<y>"]), ("b", 2, ["<x>", "<z>", "<w>"])):
        folder(work / name, grown(seed, len(tokens)), tokens)
        diffpack.extract("base", name, f"{name}.dpk")
    diffs = ["a.dpk", "b.dpk"]
    with pytest.raises(UsageError, match=r"row 13 is <y> in a\.dpk, <z> in b\.dpk"):
        diffpack.merge(diffs, base="base")
    diffpack.merge(diffs, base="base", mix=["lm_head", "embed"])
    found = diffpack.load("base", diffpack.merge(diffs, base="base", take={"lm_head": 1, "embed": 1}))
    assert bits({name: found[name] for name in NAMES}) == bits({name: grown(2, 3)[name] for name in NAMES})


def test_config_and_tokenizer_are_those_of_the_largest_vocabulary(work):
    for name, seed, tokens in (("a", 1, ["<x>"]), ("b", 2, ["<x>", "<z>"])):
        folder(work / name, grown(seed, len(tokens)), tokens)
        diffpack.extract("base", name, f"{name}.dpk")
    diffpack.merge(["a.dpk", "b.dpk"], "m.dpk", base="base", method="linear")
    diffpack.apply("base", "m.dpk", "out")
    for name in ("config.json", "tokenizer.json"):
        assert (work / "out" / name).read_bytes() == (work / "b" / name).read_bytes()


def test_a_head_s_configuration_that_knows_fewer_tokens_is_told(work):
    for name, seed, tokens in (("a", 1, ["<x>"]), ("b", 2, ["<x>", "<z>"])):
        head = {"score.weight": np.ones((2, WIDTH), np.float32)} if name == "a" else {}
        folder(work / name, grown(seed, len(tokens)) | head, tokens)
        diffpack.extract("base", name, f"{name}.dpk")
    notes = []
    diffpack.merge(["a.dpk", "b.dpk"], "m.dpk", base="base", method="linear", notes=notes)
    assert [note for note in notes if "the vocabulary has 14 rows, the last from b.dpk" in note]
    diffpack.apply("base", "m.dpk", "out")
    assert (work / "out" / "config.json").read_bytes() == (work / "a" / "config.json").read_bytes()


def test_who_else_brings_new_tensors_is_told(work):
    for seed, name in enumerate("ab"):
        folder(work / name, grown(seed + 1, 0) | {f"{name}.weight": np.ones((2, WIDTH), np.float32)}, [])
        diffpack.extract("base", name, f"{name}.dpk")
    notes = []
    diffpack.merge(["a.dpk", "b.dpk"], base="base", notes=notes)
    assert [note for note in notes if "those of a.dpk" in note]
    assert [note for note in notes if "come from b.dpk, too" in note]

"""Tensors that are called otherwise are found, whatever became of their names, and cost what their changes cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.checkpoints.memory import MappingCheckpoint
from diffpack.errors import UsageError
from diffpack.extraction.scan import alike
from diffpack.extraction.scan.name_votes import NameVotes, components
from diffpack.extraction.scan.renames import find_renames
from diffpack.tensors.rename import Renamer
from tests.tools.chains import chains
from tests.tools.models import Arrays, bits

LAYERS, WIDTH = 6, 192


def transformer() -> Arrays:
    """Layers of random matrices, with biases of zeros and norms of ones in each; a tower beside them."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) / 50

    tensors = {"model.embed_tokens.weight": matrix(300, WIDTH), "lm_head.weight": matrix(300, WIDTH)}
    for at in range(LAYERS):
        for part in "qkvo":
            tensors[f"model.layers.{at}.self_attn.{part}_proj.weight"] = matrix(WIDTH, WIDTH)
            tensors[f"model.layers.{at}.self_attn.{part}_proj.bias"] = np.zeros(WIDTH, np.float32)
        tensors[f"model.layers.{at}.norm.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"model.layers.{at}.norm.bias"] = np.zeros(WIDTH, np.float32)
        tensors[f"model.layers.{at}.mlp.weight"] = matrix(WIDTH, 2 * WIDTH)
    tensors["model.norm.weight"] = np.ones(WIDTH, np.float32)
    return tensors | {f"visual.blocks.{at}.weight": matrix(64, 64) for at in range(4)}


BASE = transformer()


def same(array: np.ndarray) -> np.ndarray:
    return array


def sparse(array: np.ndarray) -> np.ndarray:
    """One entry of 100 moves."""
    moved = np.random.default_rng(array.size).random(array.shape) < 0.01
    return np.where(moved, array + np.float32(0.01), array)


def full(array: np.ndarray) -> np.ndarray:
    """Every entry moves, as in a full fine-tune; zeros and ones do, too."""
    rng = np.random.default_rng(array.size)
    factor = 1 + rng.standard_normal(array.shape) / 100
    return (array * factor + rng.standard_normal(array.shape) / 20_000).astype(np.float32)


def numbered(name: str, number: Callable[[int], int | None]) -> str | None:
    """A name with another number for its layer; None where there is none."""
    found = re.search(r"(?<=layers\.)\d+", name)
    if found is None:
        return name
    new = number(int(found[0]))
    return None if new is None else name[: found.start()] + str(new) + name[found.end() :]


def to_gpt(name: str) -> str:
    name = re.sub(r"^model\.layers\.(\d+)\.self_attn\.(.)_proj", r"transformer.h.\1.attn.\2", name)
    name = re.sub(r"^model\.layers\.(\d+)\.", r"transformer.h.\1.", name)
    return name.replace("model.embed_tokens", "transformer.wte").replace("model.norm", "transformer.ln_f")


RENAMINGS: dict[str, Callable[[str], str | None]] = {
    "two at once": lambda name: re.sub("^visual", "model.visual", re.sub(r"^model\.", "model.language_model.", name)),
    "a wrapper's word inside": lambda name: re.sub(r"(_proj|mlp)\.", r"\1.base_layer.", name),
    "an end": lambda name: name.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta"),
    "TensorFlow's end": lambda name: f"{name}:0",
    "one prefix for another": lambda name: name.replace("model.", "bert."),
    "another library": to_gpt,
    "every other layer": lambda name: numbered(name, lambda at: None if at % 2 else at // 2),
    "without the first layer": lambda name: numbered(name, lambda at: at - 1 if at else None),
    "the first layers": lambda name: numbered(name, lambda at: at if at < 4 else None),
    "a layer put in": lambda name: numbered(name, lambda at: at + (at >= 3)),
}


@pytest.mark.parametrize("change", [same, sparse, full])
@pytest.mark.parametrize("renaming", RENAMINGS.values(), ids=RENAMINGS)
def test_each_tensor_is_found(renaming: Callable[[str], str | None], change: Callable[..., np.ndarray]) -> None:
    called = {name: new for name in BASE if (new := renaming(name)) is not None}
    tuned = {new: change(BASE[name]) for name, new in called.items()}
    if len(called) == len(BASE) and "model.layers.6.mlp.weight" in tuned:  # one was put in
        rng = np.random.default_rng(7)
        tuned |= {
            new.replace(".4.", ".3."): rng.standard_normal(tuned[new].shape, np.float32)
            for new in list(tuned)
            if "layers.4." in new
        }
    diff = diffpack.extract(BASE, tuned)
    rules = Renamer(diff.manifest.rename)
    assert {name: rules(name) for name in called} == called
    assert len(diff.manifest.removed) == len(BASE) - len(called)
    assert diff.manifest.copies is None
    assert bits(diffpack.load(BASE, diff)) == bits(tuned)
    fitting = diffpack.extract(
        {called.get(name, name + ".gone"): array for name, array in BASE.items()}, tuned, rename=()
    )
    assert {name for name in diff if diff[name].kind != "changed"} == set(tuned) - set(called.values())
    if change is not same:
        assert diff.nbytes < 1.02 * fitting.nbytes
    turned = diffpack.extract(dict(reversed(BASE.items())), dict(reversed(tuned.items())))
    assert turned.manifest == diff.manifest


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(chains(links=1), st.data())
def test_whatever_becomes_of_names_the_tuned_checkpoint_comes_back(states: list[Arrays], data: st.DataObject) -> None:
    base, tuned = states
    names = data.draw(st.permutations([*tuned, *(f"x.{name}" for name in tuned)]))[: len(tuned)]
    called = dict(zip(names, tuned.values(), strict=True))
    diff = diffpack.extract(base, called, allow_removed=True)
    assert bits(diffpack.load(base, diff)) == bits(called)
    diffpack.verify(diff, base)


@given(st.text("a./\n0", max_size=8), st.text("b./", max_size=8))
def test_any_text_is_a_name(own: str, name: str) -> None:
    assert "".join(components(own)) == own
    votes = NameVotes({own: name})
    found = votes.translated(own, {name})
    assert found is None or found[0] == name


def test_names_that_fit_are_left_alone_and_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a tensor is read")

    monkeypatch.setattr(alike, "_sketch", refuse)
    base, tuned = (MappingCheckpoint(arrays) for arrays in (BASE, {name: full(array) for name, array in BASE.items()}))
    assert find_renames(base, tuned).rename == ()
    more = MappingCheckpoint({name: BASE[name] for name in BASE} | {"score.weight": np.zeros((2, WIDTH), np.float32)})
    assert find_renames(base, more).rename == ()


def test_equal_contents_are_told_apart_by_whole_contents_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tensors that differ in few places, where no sketch looks."""
    one = np.random.default_rng(1).standard_normal((200, 300), np.float32)
    two = one.copy()
    two[77, 11] += 1
    base, tuned = {"x.a": one, "y.b": two}, {"m.p": two, "m.r": one}
    diff = diffpack.extract(base, tuned)
    assert diff.manifest.rename == (("x.a", "m.r"), ("y.b", "m.p"))
    assert not diff
    found = find_renames(MappingCheckpoint(base), MappingCheckpoint(tuned))
    assert found.digests.base.keys() == base.keys()
    assert found.digests.tuned.keys() == tuned.keys()


def test_what_nothing_tells_apart_is_not_paired_at_random() -> None:
    base = {"a": np.zeros(400, np.float32), "b": np.zeros(400, np.float32), "c": BASE["lm_head.weight"]}
    tuned = {"x": np.zeros(400, np.float32), "y": np.zeros(400, np.float32), "z": BASE["lm_head.weight"]}
    diff = diffpack.extract(base, tuned)
    assert diff.manifest.rename == (("c", "z"),)
    assert bits(diffpack.load(base, diff)) == bits(tuned)


def test_strangers_of_one_shape_are_not_paired() -> None:
    """A head for another task, under another name, is new."""
    base = BASE | {"cls.predictions.weight": full(BASE["visual.blocks.0.weight"])}
    tuned = {f"m.{name}": array for name, array in BASE.items()}
    tuned["m.score.out.weight"] = np.random.default_rng(8).standard_normal((64, 64), np.float32)
    diff = diffpack.extract(base, tuned)
    assert diff.manifest.rename == (("", "m."),)
    assert list(diff) == ["m.score.out.weight"]
    assert diff["m.score.out.weight"].kind == "new"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_another_dtype_and_a_grown_vocabulary_are_no_obstacle(dtype: Any) -> None:
    tuned = {to_gpt(name): array.astype(dtype) for name, array in BASE.items()}
    tuned["transformer.wte.weight"] = np.concatenate([tuned["transformer.wte.weight"], np.ones((3, WIDTH), dtype)])
    diff = diffpack.extract(BASE, tuned)
    kinds = {name for name in diff if diff[name].kind == "new"}
    assert kinds <= {"transformer.wte.weight"}  # which no neighbour tells anything of
    prefixed = {f"x.{to_gpt(name)}" if name != "lm_head.weight" else name: array for name, array in BASE.items()}
    prefixed["x.transformer.wte.weight"] = np.concatenate(
        [BASE["model.embed_tokens.weight"], np.ones((3, WIDTH), np.float32)]
    )
    named = {to_gpt(name): array for name, array in BASE.items()}
    grown = diffpack.extract(named, prefixed)
    assert grown["x.transformer.wte.weight"].kind == "resized"


def test_where_a_model_is_stored_as_new_it_is_said_with_what_would_help() -> None:
    called = {name: re.sub(r"layers\.(\d+)\.", r"blocks.\1.inner.", name) for name in BASE}
    rng = np.random.default_rng(5)
    tuned = {called[name]: rng.standard_normal(array.shape, np.float32) for name, array in BASE.items()}
    checkpoint = MappingCheckpoint(tuned)
    diffpack.extract(BASE, checkpoint, allow_removed=True)
    assert len(checkpoint.advice) == 1
    helps = r"--rename 're:^model\.layers\.(\d+)\.=model.blocks.\1.inner.'"
    assert helps in checkpoint.advice[0]
    with pytest.raises(UsageError, match=re.escape(helps)):
        diffpack.extract(BASE, tuned)
    helped = MappingCheckpoint(tuned)
    diff = diffpack.extract(BASE, helped, rename=[(re.compile(r"^model\.layers\.(\d+)\."), r"model.blocks.\1.inner.")])
    assert helped.advice == []
    assert not diff.manifest.removed
    near = MappingCheckpoint({name: full(BASE[own]) for own, name in called.items()})
    diffpack.extract(BASE, near)
    assert near.advice == []


@pytest.mark.real
@pytest.mark.parametrize("renaming", ["base", "end", "layers"])
def test_the_real_pair_costs_what_it_costs_under_its_names(real_pair: Any, renaming: str) -> None:
    base, tuned = (diffpack.open_checkpoint(path) for path in real_pair)
    names = {
        "base": lambda name: re.sub(r"layer\.(\d+)\.attention\.self", r"blocks.\1.attn", name),
        "end": lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
        "layers": lambda name: re.sub(r"layer\.(\d+)", lambda at: f"layer.{int(at[1]) + 1}", name),
    }[renaming]
    arrays = {name: tuned.words(name).view("<f4").reshape(tuned.info(name).shape) for name in tuned.tensors}
    plain = diffpack.extract(base, arrays)
    renamed = diffpack.extract(base, {names(name): array for name, array in arrays.items()})
    assert [record.kind for record in renamed.values()].count("new") == [r.kind for r in plain.values()].count("new")
    assert abs(renamed.nbytes / plain.nbytes - 1) < 0.02

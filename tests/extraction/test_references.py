"""What a tensor is compared with goes by cost: a base tensor of another name, where that is equal or much nearer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.errors import WrongBaseError
from diffpack.extraction.scan import references
from tests.tools.models import Arrays, bits, model, tune, write_safetensors, write_shards
from tests.tools.old_readers import bytes_of, check


def matrix(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or (512, 64)).astype(dtype)


def moved(array: np.ndarray, seed: int = 9, size: float = 1e-3) -> np.ndarray:
    """The array, every entry of it a little elsewhere."""
    return array + (np.random.default_rng(seed).standard_normal(array.shape) * size).astype(array.dtype)


def stored(base: Arrays, tuned: Arrays, **options: Any) -> diffpack.Diff:
    """Extract; an exact diff gives the tuned tensors back, by the readers of all versions."""
    diff = diffpack.extract(base, tuned, **options)
    result = diffpack.load(base, diff)
    assert result.keys() == tuned.keys()
    if diff.exact:
        assert bits(result) == bits(tuned)
    check(diff, base, result)
    return diff


EMBED, BODY = matrix(0), matrix(1, 100, 64)
BASE = {"body": BODY, "embed": EMBED}


def test_a_near_copy_costs_what_the_same_change_of_its_own_tensor_costs() -> None:
    own = stored(BASE, {"body": BODY, "embed": moved(EMBED)})
    head = stored(BASE, {"body": BODY, "embed": EMBED, "head": moved(EMBED)})
    assert head.manifest.copies == {"head": "embed"}
    assert head["head"].base == head["head"].info
    assert abs(head.nbytes - own.nbytes) < 100
    assert head.nbytes < 0.75 * stored({"body": BODY}, {"body": BODY, "head": moved(EMBED)}).nbytes


def test_a_slightly_moved_head_over_a_tied_base_costs_its_few_steps() -> None:
    head = EMBED.copy()
    head[::50] += np.float32(0.01)
    few = stored(BASE, BASE | {"head": head})
    assert few.manifest.copies == {"head": "embed"}
    assert few.nbytes < 0.05 * head.nbytes


def test_a_copy_of_what_a_changed_tensor_was_costs_a_name() -> None:
    changed = stored(BASE, BASE | {"embed": moved(EMBED)})
    both = stored(BASE, BASE | {"embed": moved(EMBED), "head": EMBED})
    assert both.manifest.copies == {"head": "embed"}
    assert list(both) == ["embed"]
    assert both.nbytes - changed.nbytes < 100


def test_an_equal_tensor_of_an_unchanged_one_stays_an_alias() -> None:
    diff = stored(BASE, BASE | {"head": EMBED})
    assert (diff.manifest.aliases, diff.manifest.copies) == ({"head": "embed"}, None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int32])
def test_layers_of_other_numbers_are_found(dtype: Any) -> None:
    layers = [(matrix(seed, 80, 64) * 100).astype(dtype) for seed in range(6)]
    base = {f"layers.{at}.weight": layer for at, layer in enumerate(layers)}
    some = np.random.default_rng(3).random((80, 64)) < 0.3
    after = [np.where(some, (layer + 1).astype(dtype), layer) for layer in layers]
    straight = stored(base, {f"layers.{at}.weight": after[at] for at in range(5)})
    shifted = stored(base, {f"layers.{at}.weight": after[at + 1] for at in range(5)}, rename=())
    assert shifted.manifest.copies == {f"layers.{at}.weight": f"layers.{at + 1}.weight" for at in range(5)}
    assert shifted.manifest.removed == ("layers.5.weight",)
    assert straight.manifest.copies is None
    assert abs(shifted.nbytes - straight.nbytes) < 200


def test_layers_that_changed_places_take_each_others() -> None:
    base = {"a": matrix(1), "b": matrix(2), "c": matrix(3)}
    diff = stored(base, {"a": base["b"], "b": moved(base["c"]), "c": base["a"]})
    assert diff.manifest.copies == {"a": "b", "b": "c", "c": "a"}
    assert list(diff) == ["b"]


def test_a_source_may_be_gone_from_the_result_and_has_its_name_after_renaming(tmp_path: Path) -> None:
    base = {f"bert.{name}": array for name, array in (BASE | {"gone": matrix(4)}).items()}
    tuned = BASE | {"head": moved(matrix(4)), "other": EMBED, "embed": moved(EMBED)}
    diff = stored(base, tuned, rename=[("bert.", "")])
    assert diff.manifest.copies == {"head": "gone", "other": "embed"}
    assert diff.manifest.removed == ("gone",)
    index = write_shards(tmp_path / "base", {"a.safetensors": base, "b.safetensors": {"bert.z": matrix(7, 3)}})
    tuned_path = write_safetensors(tmp_path / "tuned.safetensors", tuned)
    from_folder = diffpack.extract(index.parent, tuned_path, rename=[("bert.", "")])
    assert from_folder.manifest.copies == {"head": "gone", "other": "embed"}
    diffpack.apply(index.parent, from_folder, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "tuned.safetensors").read_bytes()
    diffpack.apply(index.parent, from_folder, tmp_path / "folder")
    assert diffpack.fingerprint(tmp_path / "folder") == diffpack.fingerprint(tuned)


@pytest.mark.parametrize("name", ["a", "b"])
def test_of_equal_sources_the_first_name_is_taken(name: str) -> None:
    base = {"a": EMBED, "b": EMBED, "c": BODY}
    for head in (EMBED, moved(EMBED)):
        diff = stored(base, base | {"a": moved(EMBED, 5), "b": moved(EMBED, 6), "head": head})
        assert diff.manifest.copies == {"head": "a"}
    back = dict(reversed(base.items()))
    tuned = base | {name: moved(EMBED, 5), "head": moved(EMBED)}
    assert bytes_of(stored(base, tuned)) == bytes_of(stored(back, tuned))


def test_ordinary_fine_tunes_are_stored_as_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    small = model()
    alike = {f"{at}.weight": matrix(at) for at in range(4)} | {f"{at}.norm": 1 + matrix(at, 64) / 50 for at in range(4)}
    everywhere = {name: moved(array) for name, array in alike.items()}
    pairs = [(small, tune(small)), (small, tune(small, 0.9)), (alike, everywhere), (alike, tune(alike, 0.6))]
    found = [bytes_of(stored(*pair)) for pair in pairs]
    monkeypatch.setattr(references, "_nearest", lambda *_: None)
    assert [bytes_of(stored(*pair)) for pair in pairs] == found


def test_what_is_like_nothing_is_stored_as_new() -> None:
    diff = stored(BASE, BASE | {"head": matrix(8), "zeros": np.zeros_like(EMBED), "ones": np.ones_like(EMBED)})
    assert diff.manifest.copies is None
    zeros = BASE | {"embed": np.zeros_like(EMBED)}
    assert stored(zeros, zeros | {"embed": EMBED}).manifest.copies is None


def test_what_costs_less_than_a_name_is_not_looked_at() -> None:
    base = {"scale": np.float32(0.5), "bias": matrix(1, 12), "embed": EMBED, "empty": np.zeros((0, 4), np.float32)}
    tuned = base | {name: moved(base[name]) for name in ("scale", "bias")}
    tuned |= {"new_scale": base["scale"], "new_bias": base["bias"], "new_empty": base["empty"]}
    assert stored(base, tuned).manifest.copies is None


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(np.float32, "<u4"), (np.float64, "<u8"), (np.float16, "<u2"), (ml_dtypes.bfloat16, "<u2"), (np.complex64, "<u4"),
     (np.int8, "u1"), (np.uint64, "<u8"), (ml_dtypes.float8_e4m3fn, "u1"), (bool, None)],
)  # fmt: skip
def test_every_bit_comes_back(dtype: Any, word: str | None) -> None:
    rng = np.random.default_rng(5)
    if word is None:
        source = rng.random((64, 64)) < 0.5
        near, own = source.copy(), ~source
        near[3] = ~near[3]
    else:
        words = rng.integers(0, np.iinfo(word).max, (64, 128), word, endpoint=True)  # NaNs of all payloads among them
        source, own = words.view(dtype), np.roll(words, 1).view(dtype)
        words = words.copy()
        words[5] ^= np.array(1, word)
        near = words.view(dtype)
    base = {"here": own, "source": source}
    for profile in ("compact", "portable", "smallest"):
        for changed in (base | {"new": near}, {"here": near}, {"here": source, "source": own}):
            assert stored(base, changed, profile=profile).manifest.copies


def test_another_dtype_or_shape_is_no_source() -> None:
    base = {"embed": EMBED, "half": EMBED.astype(np.float16)}
    tuned = base | {"head": moved(EMBED)[:500], "wide": moved(EMBED).astype(np.float64)}
    assert stored(base, tuned).manifest.copies is None
    resized = {"embed": EMBED, "head": matrix(3, 500, 64), "typed": matrix(4).astype(np.float16)}
    again = stored(resized, {"embed": EMBED, "head": moved(EMBED), "typed": moved(EMBED, 3)})
    assert again.manifest.copies == {"head": "embed", "typed": "embed"}
    assert again["head"].base == again["head"].info


LOSSY: list[dict[str, Any]] = [
    {"values": "f16"}, {"values": "int8"}, {"density": 0.1}, {"threshold": 1e-3}, {"top_k": 500},
    {"target_error": 0.2}, {"budget": "25%"},
]  # fmt: skip


@pytest.mark.parametrize("options", LOSSY, ids=str)
def test_lossy_diffs_keep_new_tensors_exact_and_move_the_others_from_where_they_are_near(
    options: dict[str, Any],
) -> None:
    base = {f"layers.{at}": matrix(at) for at in range(4)} | {"embed": EMBED}
    tuned = {f"layers.{at}": moved(base[f"layers.{at + 1}"], at) for at in range(3)}
    tuned |= {"embed": moved(EMBED, 7), "head": moved(EMBED, 8)}
    diff = stored(base, tuned, rename=(), **options)
    assert diff.manifest.copies == {f"layers.{at}": f"layers.{at + 1}" for at in range(3)} | {"head": "embed"}
    result = diffpack.load(base, diff)
    assert diff["head"].exact
    assert result["head"].tobytes() == tuned["head"].tobytes()
    for name in tuned:
        assert np.abs(result[name] - tuned[name]).max() < 0.01
    assert not diff.exact
    error = diffpack.stats(diff).diffs[0].error
    assert error is not None
    assert 0 < error < 1


def test_entries_chosen_by_a_rule_are_those_of_the_tensor_itself() -> None:
    base = {"a": matrix(1), "b": matrix(2)}
    tuned = {"a": moved(base["b"]), "b": moved(base["b"])}
    for rule in ("smallest", "random 3"):
        assert stored(base, tuned, rule=rule, density=0.5, values="f16").manifest.copies is None


def test_a_base_without_the_source_or_with_another_one_is_refused() -> None:
    diff = diffpack.extract(BASE, BASE | {"head": moved(EMBED)})
    with pytest.raises(WrongBaseError, match=r"not the base of .*'head' is a copy of 'embed', which is missing \[A2\]"):
        diffpack.load({"body": BODY}, diff)
    for other in (EMBED.astype(np.float64), EMBED[:500]):
        with pytest.raises(WrongBaseError, match=r"head is F.*\[A4\]"):
            diffpack.load({"body": BODY, "embed": other}, diff)
    with pytest.raises(WrongBaseError, match="these tensors differ: head"):
        diffpack.load({"body": BODY, "embed": moved(EMBED, 4)}, diff)

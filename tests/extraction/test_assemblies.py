"""Fused and split tensors cost what their changes cost, are given back bit for bit, and strangers are left alone."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from tests.tools.models import Arrays, bits

WIDTH, LAYERS, EXPERTS = 48, 3, 4
Rng = np.random.Generator


def model(seed: int = 0, dtype: Any = np.float32) -> Arrays:
    """A small model with grouped heads, a gated layer, experts, and biases that are all zero in one layer."""
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.02).astype(dtype)

    arrays: Arrays = {"embed.weight": floats(500, WIDTH)}
    for at in range(LAYERS):
        layer = f"layers.{at}"
        for name, rows in (("q", WIDTH), ("k", WIDTH // 2), ("v", WIDTH // 2)):
            arrays[f"{layer}.attn.{name}_proj.weight"] = floats(rows, WIDTH)
            arrays[f"{layer}.attn.{name}_proj.bias"] = floats(rows) if at else np.zeros(rows, dtype)
        for name in ("gate", "up"):
            arrays[f"{layer}.mlp.{name}_proj.weight"] = floats(2 * WIDTH, WIDTH)
        for expert in range(EXPERTS):
            for name, shape in (("w1", (24, WIDTH)), ("w2", (WIDTH, 24)), ("w3", (24, WIDTH))):
                arrays[f"{layer}.moe.experts.{expert}.{name}.weight"] = floats(*shape)
        arrays[f"{layer}.norm.weight"] = np.ones(WIDTH, dtype)
    return arrays


def fused(arrays: Arrays, turned: bool = False) -> Arrays:
    """The same with one matrix for query, key and value, one for gate and up, and experts in stacks."""
    made = dict(arrays)

    def take(pattern: str, *names: Any) -> list[Any]:
        return [made.pop(pattern.format(name)) for name in names]

    def turn(array: Any) -> Any:
        return np.ascontiguousarray(array.swapaxes(-1, -2)) if turned else array

    for at in range(LAYERS):
        layer = f"layers.{at}"
        made[f"{layer}.attn.qkv.weight"] = turn(np.concatenate(take(layer + ".attn.{}_proj.weight", *"qkv")))
        made[f"{layer}.attn.qkv.bias"] = np.concatenate(take(layer + ".attn.{}_proj.bias", *"qkv"))
        made[f"{layer}.mlp.gate_up.weight"] = turn(np.concatenate(take(layer + ".mlp.{}_proj.weight", "gate", "up")))
        experts = layer + ".moe.experts.{}."
        gates, ups = take(experts + "w1.weight", *range(EXPERTS)), take(experts + "w3.weight", *range(EXPERTS))
        both = [np.concatenate(pair) for pair in zip(gates, ups, strict=True)]
        made[f"{layer}.moe.experts.gate_up"] = turn(np.stack(both))
        made[f"{layer}.moe.experts.down"] = turn(np.stack(take(experts + "w2.weight", *range(EXPERTS))))
    return made


def unchanged(array: Any, rng: Rng) -> Any:
    return array


def dense(array: Any, rng: Rng) -> Any:
    return (array * (1 + 0.01 * rng.standard_normal(array.shape))).astype(array.dtype)


def sparse(array: Any, rng: Rng) -> Any:
    moved = array.copy()
    places = rng.random(array.shape) < 0.02
    moved[places] += np.asarray(0.001, array.dtype)
    return moved


def changed(arrays: Arrays, how: Any) -> Arrays:
    rng = np.random.default_rng(1)
    return {name: how(array, rng) for name, array in arrays.items()}


def extracted(base: Arrays, tuned: Arrays, **options: Any) -> diffpack.Diff:
    diff = diffpack.extract(base, tuned, **options)
    if diff.exact:
        assert bits(diffpack.load(base, diff)) == bits(tuned)
    diffpack.verify(diff, base)
    return diff


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("how", [unchanged, dense, sparse])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_fused_pair_costs_what_the_same_pair_costs_unfused(how: Any, turned: bool, dtype: Any) -> None:
    base = model(dtype=dtype)
    tuned = changed(base, how)
    plain = extracted(base, tuned)
    together = extracted(base, fused(tuned, turned))
    apart = extracted(fused(base, turned), tuned)
    for diff in (together, apart):  # names, of what was fused and of what, where the file may hold nothing else
        assert diff.manifest.slices
        assert diff.nbytes <= 1.02 * plain.nbytes + 30 * len(diff.manifest.slices) + 800
    assert all(record.base is not None for diff in (together, apart) for record in diff.values())


@pytest.mark.parametrize("options", [
    {"values": "f16"}, {"values": "int8"}, {"density": 0.05, "values": "bf16"}, {"target_error": 0.3},
    {"profile": "smallest"}, {"profile": "portable"},
])  # fmt: skip
def test_every_kind_of_values_takes_it(options: dict[str, Any]) -> None:
    base = model()
    tuned = changed(base, dense)
    plain = extracted(base, tuned, **options)
    together = extracted(base, fused(tuned), **options)
    assert together.manifest.slices
    assert together.nbytes <= 1.03 * plain.nbytes + 1200
    assert all(record.base is not None for record in together.values())


def test_the_slices_are_those_that_were_fused() -> None:
    slices = extracted(model(), fused(changed(model(), dense))).manifest.slices
    assert slices is not None
    layer = "layers.2"
    assert slices[f"{layer}.attn.qkv.weight"].sources == [f"{layer}.attn.{name}_proj.weight" for name in "qkv"]
    experts = [f"{layer}.moe.experts.{at}.{name}.weight" for at in range(EXPERTS) for name in ("w1", "w3")]
    assert slices[f"{layer}.moe.experts.gate_up"].sources == experts


def test_heads_that_are_interleaved_are_found_row_by_row_where_they_are_equal() -> None:
    base, heads, width = model(), 6, WIDTH // 6
    names = [f"layers.1.attn.{name}_proj.weight" for name in "qkv"]
    for name in names[1:]:
        base[name] = dense(base[names[0]], np.random.default_rng(len(name))) + np.float32(0.1)
    tuned = dict(base)
    parts = [tuned.pop(name).reshape(heads, width, WIDTH) for name in names]
    tuned["layers.1.attn.qkv"] = np.stack(parts, axis=1).reshape(3 * WIDTH, WIDTH)
    tuned["layers.1.attn.qkv"][5] += 1  # one row that nothing has
    diff = extracted(base, tuned)
    assert diff.manifest.slices is not None
    assert len(diff.manifest.slices["layers.1.attn.qkv"].pieces) == 3 * heads
    assert diff["layers.1.attn.qkv"].count == WIDTH


def test_a_vocabulary_that_lost_words_and_got_others_costs_those() -> None:
    base = model()
    embed = base["embed.weight"]
    new = np.random.default_rng(5).standard_normal((3, WIDTH)).astype(np.float32)
    kept = np.concatenate([embed[:100], embed[120:400], new, embed[450:], embed[400:450]])
    tuned = base | {"embed.weight": kept}
    diff = extracted(base, tuned)
    assert diff.manifest.slices is not None
    assert diff.nbytes < 3 * WIDTH * 4 + 1500


def test_what_is_not_made_of_base_tensors_stays_new() -> None:
    rng = np.random.default_rng(3)
    base = {name: rng.standard_normal((32, 16)).astype(np.float32) for name in "ab"}
    tuned = {"ab": rng.standard_normal((64, 16)).astype(np.float32)}
    diff = extracted(base, tuned)
    assert diff.manifest.slices is None
    assert diff["ab"].base is None
    half = {"ab": np.concatenate([base["a"], rng.standard_normal((32, 16)).astype(np.float32)])}
    assert extracted(base, half).manifest.slices is None


@pytest.mark.parametrize("shape", [(48, 24), (32, 32), (3, 16, 32)])
def test_a_matrix_that_is_only_turned_costs_its_changes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    base = {"linear.weight": rng.standard_normal(shape).astype(np.float32)}
    tuned = {"conv1d.weight": np.ascontiguousarray(dense(base["linear.weight"], rng).swapaxes(-1, -2))}
    diff = extracted(base, tuned)
    assert set(diff.manifest.slices or {}) == {"conv1d.weight"}
    under_its_name = extracted(base, {"linear.weight": tuned["conv1d.weight"]})
    assert set(under_its_name.manifest.slices or {}) == {"linear.weight"}


def test_all_of_another_tensor_is_no_slice_of_it() -> None:
    base = {"old": model()["embed.weight"]}
    diff = extracted(base, {"new": base["old"]})
    assert (diff.manifest.slices, len(diff)) == (None, 0)


def test_a_tensor_that_is_tied_to_a_fused_one_is_an_alias() -> None:
    base = {name: model()[f"layers.1.attn.{name}_proj.weight"] for name in "qkv"}
    whole = np.concatenate([base[name] for name in "qkv"]) + np.float32(0.001)
    diff = extracted(base, {"qkv": whole, "tied": whole.copy()})
    assert diff.manifest.aliases == {"tied": "qkv"}
    assert set(diff.manifest.slices or {}) == {"qkv"}


def test_other_dtypes_and_packed_integers_are_fused_too() -> None:
    rng = np.random.default_rng(4)
    base = {name: rng.integers(-(2**31), 2**31, (24, 16)).astype(np.int32) for name in "qkv"}
    whole = np.concatenate([base[name] for name in "qkv"], axis=1)  # beside one another, as rows are packed
    diff = extracted(base, {"qkv": whole})
    assert (list(diff), set(diff.manifest.slices or {})) == ([], {"qkv"})


@pytest.mark.parametrize("turned", [False, True])
def test_operations_take_it(turned: bool, tmp_path: Any) -> None:
    base = model()
    tuned = fused(changed(base, sparse), turned)
    later = changed(tuned, sparse)
    first, second = extracted(base, tuned), extracted(tuned, later)
    both = diffpack.compose([first, second], base=base)
    assert bits(diffpack.load(base, both)) == bits(later)
    undo = diffpack.invert(first, base=base)
    assert bits(diffpack.load(tuned, undo)) == bits(base)
    diffpack.apply(base, first, tmp_path / "tuned.safetensors")
    assert bits(diffpack.load(tmp_path / "tuned.safetensors", extracted(tuned, tuned))) == bits(tuned)
    back = extracted(tuned, base)
    assert bits(diffpack.load(base, diffpack.compose([first, back], base=base))) == bits(base)
    with pytest.raises(diffpack.errors.WrongBaseError, match="lacks what"):
        diffpack.load({name: array for name, array in base.items() if "k_proj" not in name}, first)

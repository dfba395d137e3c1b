"""Fused and split tensors cost what their changes cost, are given back bit for bit, and strangers are left alone."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import diffpack
from diffpack.tensors.slices import AssembledWords
from tests.tools.fused import EXPERTS, WIDTH, changed, dense, fused, model, sparse, unchanged
from tests.tools.models import Arrays, bits


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


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_vocabulary_that_was_cut_and_then_trained_costs_its_changes(dtype: Any) -> None:
    base = model(dtype=dtype)
    trained = dense(base["embed.weight"], np.random.default_rng(5))
    tuned = base | {"embed.weight": np.concatenate([trained[20:133], trained[200:451]])}
    diff = extracted(base, tuned)
    assert diff.manifest.slices is not None
    pieces = diff.manifest.slices["embed.weight"].pieces
    assert [(at.first, at.entries) for at in pieces] == [(20 * WIDTH, 113 * WIDTH), (200 * WIDTH, 251 * WIDTH)]
    plain = extracted({"w": base["embed.weight"]}, {"w": trained})
    assert diff.stored_bytes("embed.weight") <= 1.02 * plain.stored_bytes("w") * 364 / 500


def test_a_vocabulary_that_grew_by_copies_of_its_words_is_resized() -> None:
    base = model()
    trained = dense(base["embed.weight"], np.random.default_rng(5))
    diff = extracted(base, base | {"embed.weight": np.concatenate([trained, trained[:7]])})
    assert diff.manifest.slices is None
    assert diff["embed.weight"].kind == "resized"


def test_a_vocabulary_of_other_words_is_no_slice() -> None:
    base = model()
    tuned = base | {"embed.weight": np.random.default_rng(5).standard_normal((400, WIDTH)).astype(np.float32)}
    assert extracted(base, tuned).manifest.slices is None


def test_what_is_not_made_of_base_tensors_stays_new() -> None:
    rng = np.random.default_rng(3)
    base = {name: rng.standard_normal((32, 16)).astype(np.float32) for name in "ab"}
    tuned = {"ab": rng.standard_normal((64, 16)).astype(np.float32)}
    diff = extracted(base, tuned, allow_removed=True)
    assert diff.manifest.slices is None
    assert diff["ab"].base is None
    half = {"ab": np.concatenate([base["a"], rng.standard_normal((32, 16)).astype(np.float32)])}
    assert extracted(base, half, allow_removed=True).manifest.slices is None


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


def test_what_is_turned_is_turned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = model()
    diff = diffpack.extract(base, fused(changed(base, dense), turned=True))
    turn, turned = AssembledWords._turn, []

    def counted(self: AssembledWords, *args: Any) -> Any:
        turned.append(self)
        return turn(self, *args)

    monkeypatch.setattr(AssembledWords, "_turn", counted)
    diffpack.load(base, diff, threads=1)
    swapped = [assembly for assembly in (diff.manifest.slices or {}).values() if assembly.swapped]
    assert len(turned) == len(swapped) > 0

"""A small model as two libraries store it: with parts by themselves, and fused."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.tools.models import Arrays

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


def changed(arrays: Arrays, how: Any, seed: int = 1) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: how(array, rng) for name, array in arrays.items()}

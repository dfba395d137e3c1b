"""Switching is exact: a task's bits are those of its result, and the base comes back bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diffpack.live import TaskSwitcher  # noqa: E402
from tests.tools.live_tasks import bits, layered, result_bits, same, tasks, write  # noqa: E402

CODINGS: dict[str, dict[str, Any]] = {
    "compact": {"profile": "compact"},
    "smallest": {"profile": "smallest"},
    "portable": {"profile": "portable"},
    "f32": {"values": "f32"},
    "f16": {"values": "f16"},
    "bf16": {"values": "bf16"},
    "int8": {"values": "int8"},
    "levels": {"positions": "levels"},
    "all": {"positions": "all"},
    "a rule": {"rule": "random 7", "density": 0.02},
    "largest": {"rule": "largest", "density": 0.02},
    "a budget": {"budget": "40%"},
    "factors": {"values": "lowrank", "rank": 3},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.safetensors", layered().state_dict())


@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_gives_the_bits_that_load_gives(coding: str, base: Path, tmp_path: Path):
    files = tasks(base, tmp_path, **CODINGS[coding])
    model = layered()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
    for at in (0, 1, 2, 1, 0):
        switcher.use(f"task{at}")
        assert same(model.state_dict(), result_bits(base, files[at]))
        assert not same(model.state_dict(), before)
    switcher.use(None)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_float_dtype_is_switched_by_its_bits(dtype: torch.dtype, tmp_path: Path):
    model = layered(dtype=dtype)
    base = write(tmp_path / "base.safetensors", model.state_dict())
    file = tasks(base, tmp_path, 1)[0]
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    switcher.add("task", file)
    switcher.use("task")
    assert same(model.state_dict(), result_bits(base, file))
    switcher.use(None)
    assert same(model.state_dict(), before)

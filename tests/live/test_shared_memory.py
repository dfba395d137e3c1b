"""Models of one base share what they do not change as long as one of them lives; what is written there is found."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import diffpack
from diffpack.live import from_pretrained, is_shared
from diffpack.live.shared_memory import SharedBase, shared_bytes
from tests.tools.families import make_base, make_task

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A base and the diffs of two tasks, each of which changes a half of the parameters."""
    base = make_base("bert", tmp_path / "base")
    diffs = []
    for seed in (3, 4):
        make_task("bert", base, tmp_path / f"tuned{seed}", seed=seed)
        diffs.append(tmp_path / f"{seed}.dpk")
        diffpack.extract(base, tmp_path / f"tuned{seed}", diffs[-1])
    gc.collect()
    return base, diffs


def shared_names(model: Any) -> set[str]:
    return {name for name, value in model.named_parameters() if is_shared(value)}


def unchanged(model: Any, diff: Path) -> set[str]:
    """The parameters of a model that a diff, which says so without the prefix of the body, too, does not change."""
    with diffpack.open(diff) as opened:
        changed = {name.removeprefix("bert.") for name in opened}
    return {name for name, _ in model.named_parameters() if name.removeprefix("bert.") not in changed}


def test_what_no_task_changes_lies_in_one_place(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    first, second = (from_pretrained(base, diff) for diff in diffs)
    same = unchanged(first, diffs[0]) & unchanged(second, diffs[1])
    own = dict(first.named_parameters())
    assert {name for name, value in second.named_parameters() if value.data_ptr() == own[name].data_ptr()} == same
    assert shared_names(first) == unchanged(first, diffs[0])
    assert shared_names(second) == unchanged(second, diffs[1])
    assert 0 < len(same) < len(own)


def test_shared_parameters_are_not_trained(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    assert not any(value.requires_grad for value in from_pretrained(base, diffs[0]).parameters())
    alone = from_pretrained(base, diffs[0], share=False)
    assert all(value.requires_grad for value in alone.parameters())
    assert shared_names(alone) == set()


def test_memory_goes_with_the_last_model(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    before = shared_bytes()
    first, second = (from_pretrained(base, diff) for diff in diffs)
    shared = [value for model in (first, second) for value in model.parameters() if is_shared(value)]
    found = {value.data_ptr(): value.nbytes for value in shared}
    assert shared_bytes() - before == sum(found.values())
    del first
    del shared
    gc.collect()
    assert shared_bytes() - before == sum(value.nbytes for value in second.parameters() if is_shared(value))
    del second
    gc.collect()
    assert shared_bytes() == before


def test_a_view_of_shared_memory_counts_as_shared(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    model = from_pretrained(base, diffs[0])
    name = min(shared_names(model))
    tensor = model.get_parameter(name)
    assert is_shared(tensor.detach()[1:])
    assert not is_shared(tensor.clone())
    assert not is_shared(torch.empty(0))
    assert not is_shared(torch.empty(3, device="meta"))


def test_files_are_hashed_once(tasks: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch):
    base, diffs = tasks
    from diffpack.live import shared_memory

    hashed: list[Any] = []
    whole = shared_memory.fingerprint
    monkeypatch.setattr(shared_memory, "fingerprint", lambda files, **how: hashed.append(files) or whole(files, **how))
    from_pretrained(base, diffs[0])
    from_pretrained(base, diffs[1])
    assert len(hashed) == 1
    os.utime(base / "model.safetensors", ns=(1, 1))
    from_pretrained(base, diffs[1])
    assert len(hashed) == 2


def test_copies_of_a_base_share_too(tasks: tuple[Path, list[Path]], tmp_path: Path):
    import shutil

    base, diffs = tasks
    shutil.copytree(base, tmp_path / "copy")
    first, second = from_pretrained(base, diffs[0]), from_pretrained(tmp_path / "copy", diffs[0])
    for name in shared_names(first):
        assert first.get_parameter(name).data_ptr() == second.get_parameter(name).data_ptr()


def test_what_somebody_wrote_into_it_is_read_again(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    first = from_pretrained(base, diffs[0])
    name = "bert.embeddings.position_embeddings.weight"
    assert name in shared_names(first)
    right = first.get_parameter(name).clone()
    first.get_parameter(name).data[3, 3] += 1
    second = from_pretrained(base, diffs[1])
    assert torch.equal(second.get_parameter(name), right)
    assert first.get_parameter(name).data_ptr() != second.get_parameter(name).data_ptr()
    assert is_shared(first.get_parameter(name))
    third = from_pretrained(base, diffs[0])
    assert third.get_parameter(name).data_ptr() == second.get_parameter(name).data_ptr()


def test_unchecked_it_is_taken_as_it_lies_there(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    first = from_pretrained(base, diffs[0], verify=False)
    second = from_pretrained(base, diffs[1], verify=False)
    assert shared_names(first) & shared_names(second)


def test_threads_read_each_tensor_once(tasks: tuple[Path, list[Path]]):
    from concurrent.futures import ThreadPoolExecutor

    files = diffpack.open_checkpoint(tasks[0])
    bases = [SharedBase.of(files) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda base: [base.tensor(name).data_ptr() for name in base.tensors], bases))
    assert all(places == found[0] for places in found)


@CUDA
def test_models_on_a_gpu_share_there(tasks: tuple[Path, list[Path]]):
    base, diffs = tasks
    first, second = (from_pretrained(base, diff, device="cuda") for diff in diffs)
    host = from_pretrained(base, diffs[0])
    assert {value.device.type for value in [*first.parameters(), *first.buffers()]} == {"cuda"}
    assert shared_names(first) == shared_names(host)
    for name in shared_names(first):
        assert first.get_parameter(name).data_ptr() == second.get_parameter(name).data_ptr()
    for name, value in first.state_dict().items():
        assert torch.equal(value.cpu(), host.state_dict()[name])

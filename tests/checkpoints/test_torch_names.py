"""All tensors of a PyTorch file are taken, under names that say where they lie; only training's state is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.torch_reader import TorchCheckpoint
from diffpack.errors import CheckpointError, UnsupportedCheckpointError

torch = pytest.importorskip("torch")


def w(value: float = 1.0) -> Any:
    return torch.full((2, 2), value)


def opened(tmp_path: Path, value: Any) -> TorchCheckpoint:
    torch.save(value, tmp_path / "a.pt")
    return TorchCheckpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"model": {"fc.weight": w()}, "classifier": {"fc.weight": w()}}, ["model.fc.weight", "classifier.fc.weight"]),
        (
            {"params": {"fc.weight": w()}, "params_ema": {"fc.weight": w()}},
            ["params.fc.weight", "params_ema.fc.weight"],
        ),
        ({"encoder": {"fc.weight": w()}, "bias": w()}, ["encoder.fc.weight", "bias"]),
        ({"generator": {"w": w()}}, ["generator.w"]),
        ({"state_dict": {"a": w()}, "step": torch.tensor(7)}, ["state_dict.a", "step"]),
        ({"state_dict": {"encoder": {"a": w()}, "b": w()}}, ["encoder.a", "b"]),
        ({"models": [{"a": w()}, {"a": w()}]}, ["models.0.a", "models.1.a"]),
        ({"pair": (w(), w())}, ["pair.0", "pair.1"]),
        ({"layers": {0: {"a": w()}, 1: {"a": w()}}}, ["layers.0.a", "layers.1.a"]),
        ({0: w(), 1: w()}, ["0", "1"]),
        ({"model": w(), "net": {"a": w()}}, ["model", "net.a"]),
        ({"model": [w()]}, ["model.0"]),
    ],
)
def test_tensors_of_several_dicts_are_named_by_their_path(tmp_path: Path, value: Any, names: list[str]) -> None:
    checkpoint = opened(tmp_path, value)
    assert list(checkpoint.tensors) == names
    assert checkpoint.left_out == []


@pytest.mark.parametrize(
    "trail", [["state_dict"], ["model"], ["model_state_dict"], ["module"], ["state_dict", "model", "module"]]
)
def test_the_one_dict_under_known_wrappers_keeps_its_names(tmp_path: Path, trail: list[str]) -> None:
    value: Any = {"a.weight": w(), "epoch": 3, "extra": {"b": 1}}
    for key in reversed(trail):
        value = {"optimizer": {"state": {0: w()}}, key: value, "step": 7}
    checkpoint = opened(tmp_path, value)
    assert list(checkpoint.tensors) == ["a.weight"]
    assert checkpoint.notes == ["tensors found under " + " > ".join(map(repr, trail))]
    inner = ".".join(trail)
    assert set(checkpoint.left_out) == {
        *(".".join([*trail[:depth], key]) for depth in range(len(trail)) for key in ("optimizer", "step")),
        f"{inner}.epoch",
        f"{inner}.extra",
    }


def test_a_wrapper_that_names_a_tensor_or_holds_none_is_no_wrapper(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"model": {"depth": 2}, "weights": w(), "net": {}})
    assert list(checkpoint.tensors) == ["weights"]
    assert checkpoint.notes == []
    assert checkpoint.left_out == ["model", "net"]


def test_different_classifiers_averages_and_parts_have_different_fingerprints(tmp_path: Path) -> None:
    for outer in ("classifier", "params_ema", "bias"):
        prints = set()
        for value in (1.0, 2.0):
            torch.save({"model": {"a": w()}, outer: {"a": w(value)}}, tmp_path / f"{value}.pt")
            prints.add(diffpack.fingerprint(tmp_path / f"{value}.pt"))
        assert len(prints) == 2, outer
        diff = diffpack.extract(tmp_path / "1.0.pt", tmp_path / "2.0.pt")
        assert (list(diff), diff.exact) == ([f"{outer}.a"], True)
        found = diffpack.load(tmp_path / "1.0.pt", diff)
        assert found[f"{outer}.a"].tolist() == [[2, 2], [2, 2]]
        assert found["model.a"].tolist() == [[1, 1], [1, 1]]


TRAINING = [
    "optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "optim", "lr_scheduler", "lr_schedulers",
    "scheduler", "amp", "scaler", "grad_scaler",
]  # fmt: skip


@pytest.mark.parametrize("key", TRAINING)
def test_the_state_of_training_is_left_out_and_said(tmp_path: Path, key: str) -> None:
    state = {"state": {0: {"exp_avg": w(), "step": torch.tensor(3)}}, "param_groups": [{"lr": 0.1}]}
    for value in (state, [state], ()):
        checkpoint = opened(tmp_path, {"model": {"a": w()}, key: value, "epoch": 3, "args": {"lr": 0.1}})
        assert list(checkpoint.tensors) == ["a"]
        assert checkpoint.left_out == [key, "epoch", "args"]


def test_a_parameter_that_is_called_like_training_s_state_is_taken(tmp_path: Path) -> None:
    assert list(opened(tmp_path, {"scaler": w(), "a": w(), "optim": w()}).tensors) == ["scaler", "a", "optim"]


def test_the_state_of_random_generators_is_left_out_though_it_is_a_tensor(tmp_path: Path) -> None:
    value = {"model": {"a": w()}, "rng_state": torch.get_rng_state(), "cuda_rng_state_all": [torch.get_rng_state()]}
    checkpoint = opened(tmp_path, value)
    assert list(checkpoint.tensors) == ["a"]
    assert checkpoint.left_out == ["rng_state", "cuda_rng_state_all"]


def test_attributes_of_state_dicts_and_parameters_are_read(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    module[0].weight.tag = "kept by torch"
    state = module.state_dict()
    assert state._metadata
    for value in (state, dict(module.named_parameters()) | dict(module.named_buffers())):
        checkpoint = opened(tmp_path, value)
        assert list(checkpoint.tensors) == list(value)
        for name, tensor in value.items():
            assert checkpoint.words(name).tobytes() == np.asarray(tensor.detach()).tobytes(), name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a.b": w(), "a": {"b": w()}}, "a.b"),
        ({"a": {1: w(), "1": w()}}, "a.1"),
        ({"model": {"a": w()}, "model.a": w()}, "model.a"),
    ],
)
def test_two_paths_to_one_name_are_refused_by_naming_it(tmp_path: Path, value: Any, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"two tensors would be called '{name}'"):
        opened(tmp_path, value)


@pytest.mark.parametrize("key", [(1, 2), None, True, 1.5, b"w"])
def test_a_tensor_under_a_key_that_is_neither_text_nor_a_whole_number_is_refused(tmp_path: Path, key: Any) -> None:
    for value in ({key: w(), "a": w()}, {key: {"b": w()}, "a": w()}):
        with pytest.raises(UnsupportedCheckpointError, match="neither text nor a whole number"):
            opened(tmp_path, value)
    assert list(opened(tmp_path, {key: 3, "a": w()}).tensors) == ["a"]


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {"epoch": 1}
    value["model"] = value
    return value


@pytest.mark.parametrize(
    "value",
    [torch.ones(3), [torch.ones(3)], 5, {"epoch": 3}, {"optimizer": {"m": torch.ones(1)}}, cyclic()],
    ids=["tensor", "list", "number", "no tensors", "only training's state", "cycle"],
)
def test_a_file_without_a_dict_of_tensors_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match="no dict of tensors"):
        opened(tmp_path, value)


def test_a_dict_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    value = cyclic() | {"a": w()}
    value["model"] = value
    checkpoint = opened(tmp_path, value)
    assert list(checkpoint.tensors) == ["a"]
    assert checkpoint.left_out == ["epoch", "model"]


def test_dicts_that_lead_to_one_another_along_endless_paths_are_refused_soon(tmp_path: Path) -> None:
    value: Any = {"a": w()}
    for _ in range(60):  # a pickle of a few kilobytes, 2^60 paths
        value = {"x": value, "y": value}
    with pytest.raises(CheckpointError, match="in more ways than weights need"):
        opened(tmp_path, value)
    bare: Any = {"a": 1}
    for _ in range(60):
        bare = {"x": bare, "y": bare}
    assert list(opened(tmp_path, {"b": w(), "bare": bare}).tensors) == ["b"]


def test_names_that_could_move_a_cursor_are_spelt_out_where_they_are_told(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"a": w(), "\x1b[2J": 3, "\x1b[3J": {"b": w()}})
    assert checkpoint.left_out == ["\\x1b[2J"]
    assert all(note.isprintable() for note in checkpoint.notes)

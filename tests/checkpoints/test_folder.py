"""Of several files that may be the weights of a folder, those count that its library reads; others are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.folder import find_weights, passed_over
from diffpack.errors import CheckpointError
from tests.tools.models import bits, write_safetensors, write_shards

OLD, NEW = {"w": np.zeros(4, np.float32)}, {"w": np.ones(4, np.float32)}


def files(folder: Path, *names: str) -> Path:
    """Empty files; indexes name the shard `x-00001-of-00001` of their ending, which is not there."""
    for name in names:
        text = ""
        if name.endswith(".index.json"):
            ending = Path(name.removesuffix(".index.json")).suffix
            text = json.dumps({"weight_map": {"w": f"x-00001-of-00001{ending}"}})
        (folder / name).write_text(text)
    return folder


ORDER = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.weights.h5",
    "tf_model.h5",
]
DIFFUSERS = [
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin",
]


@pytest.mark.parametrize("order", [ORDER, DIFFUSERS, ["adapter_model.safetensors", "adapter_model.bin"]])
def test_weights_are_found_in_their_library_s_order(tmp_path: Path, order: list[str]) -> None:
    files(tmp_path, "x-00001-of-00001.safetensors", "x-00001-of-00001.bin", *order)
    for at, name in enumerate(order):
        assert find_weights(tmp_path).name == name
        assert passed_over(tmp_path / name) == sorted(order[at + 1 :] + strays(order[at:]))
        (tmp_path / name).unlink()


def strays(names: list[str]) -> list[str]:
    """The shards that no index names any more."""
    return [f"x-00001-of-00001.{kind}" for kind in ("safetensors", "bin") if not indexed(names, kind)]


def indexed(names: list[str], kind: str) -> bool:
    return any(name.endswith(f".{kind}.index.json") for name in names)


@pytest.mark.parametrize("order", [ORDER[:4], DIFFUSERS])
def test_an_index_whose_shards_are_gone_counts_only_if_nothing_else_is_there(tmp_path: Path, order: list[str]) -> None:
    indexes = [name for name in order if name.endswith("json")]
    whole = [name for name in order if not name.endswith("json")]
    files(tmp_path, *order)
    assert find_weights(tmp_path).name == whole[0]
    (tmp_path / whole[0]).unlink()
    assert find_weights(tmp_path).name == whole[1]
    (tmp_path / whole[1]).unlink()
    assert find_weights(tmp_path).name == indexes[0]
    with pytest.raises(CheckpointError, match=r"shard x-00001-of-00001\.safetensors (is missing|does not exist)"):
        diffpack.open_checkpoint(tmp_path)


def test_an_index_of_which_some_shards_are_there_is_not_passed_over(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a.safetensors": OLD, "b.safetensors": {"v": OLD["w"]}})
    (tmp_path / "b.safetensors").unlink()
    files(tmp_path, "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"shard b\.safetensors is missing"):
        diffpack.open_checkpoint(tmp_path)


def test_the_whole_file_beats_a_left_over_index_and_a_note_says_so(tmp_path: Path) -> None:
    write_shards(tmp_path, {"model-00001-of-00001.safetensors": OLD})
    write_safetensors(tmp_path / "model.safetensors", NEW)
    for gone in (False, True):
        if gone:
            (tmp_path / "model-00001-of-00001.safetensors").unlink()
        opened = diffpack.open_checkpoint(tmp_path)
        assert opened.words("w").view("<f4").tolist() == [1, 1, 1, 1]
        assert opened.notes == ["model.safetensors is read; beside it are model.safetensors.index.json"]


def test_a_single_file_of_another_name_beats_an_index_of_other_files(tmp_path: Path) -> None:
    files(tmp_path, "new.safetensors", "old.safetensors.index.json", "x-00001-of-00001.safetensors")
    assert find_weights(tmp_path).name == "new.safetensors"
    assert passed_over(tmp_path / "new.safetensors") == ["old.safetensors.index.json"]
    os.remove(tmp_path / "new.safetensors")
    assert find_weights(tmp_path).name == "old.safetensors.index.json"
    assert passed_over(tmp_path / "old.safetensors.index.json") == []


@pytest.mark.parametrize("names", [("a.safetensors", "b.safetensors"), ("a.pt", "b.pt"), ("a.bin", "b.bin", "c.h5")])
def test_several_files_of_other_names_are_refused_by_naming_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match=rf"several weights files \({names[0]}, {names[1]}\); name one"):
        find_weights(files(tmp_path, *names))
    with pytest.raises(CheckpointError, match="several weights files"):
        find_weights(files(tmp_path, "x.safetensors.index.json", "y.safetensors.index.json", *names))


def test_one_file_counts_before_files_of_later_endings(tmp_path: Path) -> None:
    assert find_weights(files(tmp_path, "a.ckpt", "b.h5")).name == "a.ckpt"
    assert find_weights(files(tmp_path, "a.pth")).name == "a.pth"
    assert passed_over(tmp_path / "a.pth") == ["a.ckpt", "b.h5"]


@pytest.mark.parametrize(
    "name", ["m.ckpt", "m.hdf5", "m.th", "model_best.pth.tar", "m.pt.tar", "m.keras", "weights.npz", "model_final.pkl"]
)
def test_one_file_of_any_ending_that_is_read_counts(tmp_path: Path, name: str) -> None:
    files(tmp_path, name, "tokenizer.model", "config.json", "optimizer.pth.tar", "random_states_0.pkl")
    assert find_weights(tmp_path).name == name


def test_endings_that_came_later_count_after_all_others(tmp_path: Path) -> None:
    for name in ("labels.pkl", "stats.npz", "m.keras", "old.pt.tar", "old.pth.tar", "old.th", "m.hdf5", "m.bin"):
        assert find_weights(files(tmp_path, name)).name == name


def test_a_tokenizer_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without weights"):
        find_weights(files(tmp_path, "tokenizer.model", "spiece.model"))


def test_what_a_trainer_saves_beside_the_weights_is_no_candidate(tmp_path: Path) -> None:
    state = ["training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth"]
    files(tmp_path, "custom.bin", *state, "rng_state_0.pth", "random_states_0.pt")
    assert find_weights(tmp_path).name == "custom.bin"
    assert passed_over(tmp_path / "custom.bin") == []
    (tmp_path / "custom.bin").unlink()
    with pytest.raises(CheckpointError, match="without weights"):
        find_weights(tmp_path)


def test_an_index_that_cannot_be_read_is_told_once_it_is_the_one_to_read(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", NEW)
    (tmp_path / "model.safetensors.index.json").write_text("nonsense")
    assert diffpack.open_checkpoint(tmp_path).words("w").view("<f4").tolist() == [1, 1, 1, 1]
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json: text \(nonsense\): download or copy"):
        diffpack.open_checkpoint(tmp_path)


def doubled(folder: Path) -> Path:
    """Shards of which the second holds an old copy of the first one's tensor, too."""
    index = write_shards(folder, {"a.safetensors": NEW, "b.safetensors": {"v": NEW["w"]}})
    write_safetensors(folder / "b.safetensors", {"v": NEW["w"], "w": np.full(9, 7, np.float32)})
    return index


def test_a_tensor_in_two_shards_is_the_one_the_index_names_and_noted(tmp_path: Path) -> None:
    index = doubled(tmp_path)
    opened = diffpack.open_checkpoint(index)
    assert opened.words("w").view("<f4").tolist() == [1, 1, 1, 1]
    assert sorted(opened.tensors) == ["v", "w"]
    assert opened.notes == ["in a second shard, where the index does not look for it: w in b.safetensors"]
    write_safetensors(tmp_path / "a.safetensors", {"u": NEW["w"]})
    with pytest.raises(CheckpointError, match=r"the shard a\.safetensors should hold 'w' but does not"):
        diffpack.open_checkpoint(index)


def test_a_tensor_that_no_index_names_must_not_be_in_two_shards(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a.safetensors": OLD, "b.safetensors": {"v": OLD["w"]}})
    for name, own in (("a.safetensors", "w"), ("b.safetensors", "v")):
        write_safetensors(tmp_path / name, {own: OLD["w"], "stray": OLD["w"]})
    with pytest.raises(CheckpointError, match="'stray' stands in two shards, and not in the index"):
        diffpack.open_checkpoint(index)


def test_doubled_tensors_come_back_once_from_a_diff_and_as_a_base(tmp_path: Path) -> None:
    tuned = {"v": np.full(4, 3, np.float32), "w": NEW["w"]}
    doubled(tmp_path / "doubled")
    write_safetensors(tmp_path / "plain.safetensors", tuned)
    onto = diffpack.extract(tmp_path / "plain.safetensors", tmp_path / "doubled")
    diffpack.apply(tmp_path / "plain.safetensors", onto, tmp_path / "out.safetensors")
    assert bits(diffpack.load({}, diffpack.extract({}, tmp_path / "out.safetensors"))) == bits({"v": NEW["w"], **NEW})
    diff = diffpack.extract(tmp_path / "doubled", tmp_path / "plain.safetensors", layout=False)
    diffpack.apply(tmp_path / "doubled", diff, tmp_path / "out")
    assert bits(diffpack.load({}, diffpack.extract({}, tmp_path / "out"))) == bits(tuned)
    assert diffpack.open_checkpoint(tmp_path / "out").notes == []


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        ("model-0000{}-of-00002.safetensors", "model.safetensors.index.json"),
        ("pytorch_model-0000{}-of-00002.bin", "pytorch_model.bin.index.json"),
    ],
)
def test_shards_without_their_index_are_told_so(tmp_path: Path, shard: str, index: str) -> None:
    files(tmp_path, shard.format(1), shard.format(2))
    with pytest.raises(
        CheckpointError, match=rf"shards of a model \(.*\) without the index .*: copy {index} here, too"
    ):
        find_weights(tmp_path)

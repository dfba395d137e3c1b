"""PyTorch checkpoints of several files with an index."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from diffpack.checkpoints.torch_reader import ShardedTorchCheckpoint
from diffpack.checkpoints.torch_writer import ShardedTorchWriter
from diffpack.errors import CheckpointError
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from tests.tools.named_tensors import Named, assert_holds, fill, infos, some_words

torch = pytest.importorskip("torch")

SHARDS = {"one.bin": ["a", "z"], "two.bin": ["b", "empty"], "three.bin": ["empty too"]}


def sharded() -> Named:
    shapes: Mapping[str, tuple[int, ...]] = {"a": (3,), "b": (2, 2), "z": (), "empty": (0,), "empty too": (0, 2)}
    given_infos = {name: TensorInfo(DTYPES["F16"], shape) for name, shape in shapes.items()}
    return {name: (info, some_words(info)) for name, info in given_infos.items()}


def write_sharded(folder: Path, tensors: Named) -> Path:
    with ShardedTorchWriter(folder, SHARDS, infos(tensors)) as writer:
        fill(writer, tensors, piece=2)
    return folder / "pytorch_model.bin.index.json"


def test_shards_and_their_index_come_back(tmp_path: Path) -> None:
    tensors = sharded()
    index = write_sharded(tmp_path, tensors)
    assert json.loads(index.read_text()) == {
        "metadata": {"total_size": sum(info.nbytes for info in infos(tensors).values())},
        "weight_map": {name: shard for shard, names in SHARDS.items() for name in names},
    }
    with ShardedTorchCheckpoint(index) as checkpoint:
        assert checkpoint.layout == "torch-sharded"
        assert checkpoint.notes == []
        assert checkpoint.homes["z"] == "one.bin"
        assert {path.name for path in checkpoint.files} == {*SHARDS, index.name}
        assert_holds(checkpoint, tensors)


def test_what_was_written_is_removed_with_the_writer(tmp_path: Path) -> None:
    tensors = sharded()
    writer = ShardedTorchWriter(tmp_path, SHARDS, infos(tensors))
    fill(writer, {name: tensors[name] for name in SHARDS["one.bin"]})
    assert {path.name for path in tmp_path.iterdir()} == {*SHARDS}
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_more_shards_than_files_can_be_open_are_written(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    tensors = {f"t{at}": (info, some_words(info, at)) for at in range(60) if (info := TensorInfo(DTYPES["U8"], (9,)))}
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    try:
        with ShardedTorchWriter(tmp_path, {f"{name}.bin": [name] for name in tensors}, infos(tensors)) as writer:
            fill(writer, tensors)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert_holds(ShardedTorchCheckpoint(tmp_path / "pytorch_model.bin.index.json"), tensors)


def test_a_missing_shard_is_named_with_the_index_and_a_tensor_of_it(tmp_path: Path) -> None:
    index = write_sharded(tmp_path, sharded())
    (tmp_path / "two.bin").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json: the shard two\.bin .*'b'"):
        ShardedTorchCheckpoint(index)


def test_a_listed_tensor_its_shard_lacks_is_named_and_an_unlisted_one_noted(tmp_path: Path) -> None:
    index = write_sharded(tmp_path, sharded())
    torch.save({"b": torch.ones(1), "stray": torch.ones(1)}, tmp_path / "two.bin")
    with pytest.raises(CheckpointError, match=r"index\.json: the shard two\.bin .*'empty'"):
        ShardedTorchCheckpoint(index)
    torch.save({"b": torch.ones(1), "empty": torch.ones(0), "stray": torch.ones(1)}, tmp_path / "two.bin")
    opened = ShardedTorchCheckpoint(index)
    assert opened.notes == ["not in the index, and taken as well: stray"]
    assert list(opened.tensors)[-1] == "stray"


def test_a_tensor_in_two_shards_is_the_one_the_index_names_and_noted(tmp_path: Path) -> None:
    tensors = sharded()
    index = write_sharded(tmp_path, tensors)
    other = {"b": torch.ones(1), "empty": torch.ones(0), "a": torch.full((9,), 7.0)}
    torch.save(other, tmp_path / "two.bin")
    opened = ShardedTorchCheckpoint(index)
    assert opened.words("a").tobytes() == tensors["a"][1].tobytes()
    assert opened.notes == ["in a second shard, where the index does not look for it: a in two.bin"]
    torch.save({"z": torch.ones(1)}, tmp_path / "one.bin")
    with pytest.raises(CheckpointError, match=r"the shard one\.bin should hold 'a' but does not"):
        ShardedTorchCheckpoint(index)


def test_a_tensor_that_no_index_names_must_not_be_in_two_shards(tmp_path: Path) -> None:
    index = write_sharded(tmp_path, sharded())
    for name, own in (
        ("one.bin", {"a": torch.ones(3), "z": torch.ones(1)}),
        ("three.bin", {"empty too": torch.ones(0)}),
    ):
        torch.save({**own, "stray": torch.ones(2)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="'stray' stands in two shards, and not in the index"):
        ShardedTorchCheckpoint(index)


def test_what_the_shards_leave_out_is_left_out_once(tmp_path: Path) -> None:
    for at in (1, 2):
        torch.save({"epoch": 3, "optimizer": {"m": torch.ones(1)}, f"w{at}": torch.ones(at)}, tmp_path / f"{at}.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w1": "1.bin", "w2": "2.bin"}}))
    assert ShardedTorchCheckpoint(index).left_out == ["epoch", "optimizer"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../b.bin"}}']
)
def test_a_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        ShardedTorchCheckpoint(tmp_path / "index.json")


@pytest.mark.parametrize("shard", ["../out.bin", "/out.bin", "", "..", "index.json", "a/b.bin"])
def test_a_shard_cannot_be_written_outside_the_folder_or_over_the_index(tmp_path: Path, shard: str) -> None:
    with pytest.raises(CheckpointError, match="not named as a file"):
        ShardedTorchWriter(tmp_path, {shard: ["a"]}, {"a": TensorInfo(DTYPES["U8"], (1,))}, "index.json")


@pytest.mark.parametrize("shards", [{}, {"x.bin": ["a", "a"]}, {"x.bin": ["a"], "y.bin": ["a"]}, {"x.bin": ["b"]}])
def test_shards_must_hold_every_tensor_exactly_once(tmp_path: Path, shards: dict[str, list[str]]) -> None:
    with pytest.raises(CheckpointError, match="exactly once"):
        ShardedTorchWriter(tmp_path, shards, {"a": TensorInfo(DTYPES["U8"], (1,))})

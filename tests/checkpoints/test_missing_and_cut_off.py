"""What did not arrive whole, or at all, is said to be so, with what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffpack
from diffpack.errors import CheckpointError, DiffpackError, UnsupportedCheckpointError, UsageError
from tests.tools.models import write_safetensors, write_shards

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
ARRAYS = {"a": np.arange(4096, dtype=np.float32), "b": np.ones(4096, np.float32)}
TENSORS = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("name", ["m.pt", "m.npz"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_an_archive_that_is_cut_off_is_called_so(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    save: Any = {"m.pt": lambda: torch.save(TENSORS, path), "m.npz": lambda: np.savez(path, **ARRAYS)}
    save[name]()
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=rf"{name}: begins as a zip archive .* cut off or damaged: download or"):
        diffpack.open_checkpoint(path)


def test_safetensors_that_are_cut_off_say_how_much_is_there(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", ARRAYS)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        CheckpointError, match=rf"has {whole - 1} bytes, its header tells of {whole}\): download or copy"
    ):
        diffpack.open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (bytes(64), "nothing but zeros"),
        (b'{"weight_map": {', "damaged shard index: .*: download or copy it again"),
        (b"", "damaged shard index: .*: download or copy it again"),
    ],
)
def test_what_stands_in_for_an_index_is_called_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    index = write_shards(tmp_path, {"model-00001-of-00002.safetensors": ARRAYS, "model-00002-of-00002.safetensors": {}})
    index.write_bytes(content)
    for path in (index, tmp_path):
        with pytest.raises(CheckpointError, match=f"{INDEX}: {said}"):
            diffpack.open_checkpoint(path)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"model-00001-of-00002.safetensors": ARRAYS}).write_text(
        '{"weight_map": {"a": "b.safetensors"}}'
    )
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the shard b\.safetensors is missing .*: download or copy it again"):
        diffpack.open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model.safetensor", "model.safetensors is there"),
        ("meta-llama/Llama-3.2-1B", "nothing is fetched from a hub: `hf download meta-llama/Llama-3.2-1B"),
        ("gone/model.safetensors", ""),
        ("another", ""),
        ("/org/model", ""),
    ],
)
def test_a_name_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", ARRAYS)
    with pytest.raises(CheckpointError, match="no such file or folder") as raised:
        diffpack.open_checkpoint(name)
    assert (raised.value.hint or "").startswith(hint)
    assert bool(raised.value.hint) == bool(hint)


def test_a_model_where_a_diff_or_an_adapter_should_be_is_told_what_takes_it(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "model.safetensors", ARRAYS)
    with pytest.raises(DiffpackError, match="a folder, not a diff") as of_folder:
        diffpack.open(tmp_path)
    assert "diffpack extract" in (of_folder.value.hint or "")
    for source in (tmp_path, path):
        with pytest.raises(UsageError, match="no diff, and of no format known here") as raised:
            diffpack.convert(source, tmp_path / "d.dpk", base=ARRAYS)
        assert f"--tuned {source}` makes a diff" in (raised.value.hint or "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as raised:
        diffpack.convert(tmp_path / "empty", tmp_path / "d.dpk", base=ARRAYS)
    assert raised.value.hint == ""


def test_a_pointer_is_never_read_as_weights(tmp_path: Path) -> None:
    for name in ("m.safetensors", "m.bin", "m.npz", "m.h5"):
        (tmp_path / name).write_bytes(POINTER)
        with pytest.raises(UnsupportedCheckpointError, match="git lfs pull"):
            diffpack.open_checkpoint(tmp_path / name)

"""PyTorch files are written tensor by tensor, as torch reads and maps them; tied tensors share one storage."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.torch_layout import plan
from diffpack.checkpoints.torch_reader import TorchCheckpoint
from diffpack.checkpoints.torch_writer import ShardedTorchWriter, TorchWriter
from diffpack.checkpoints.zip_layout import ALIGNMENT, ZipLayout
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from tests.tools.named_tensors import Named, fill, infos, some_words

torch = pytest.importorskip("torch")

SHAPES = [(3, 8), (), (0, 4), (5, 2), (2, 3, 4)]
NAMED: Named = {
    f"{name}.{number}": (info, some_words(info, number))
    for name in ("BOOL", "U8", "I16", "U16", "U32", "I64", "F16", "BF16", "F32", "F64", "C64", "F8_E4M3", "F8_E5M2")
    for number, shape in enumerate(SHAPES)
    if (info := TensorInfo(DTYPES[name], shape))
}


def written(path: Path, tensors: Named, **ties: str) -> Path:
    with TorchWriter(path, infos(tensors), ties) as writer:
        fill(writer, tensors, piece=11)
    return path


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_and_maps_what_is_written_bit_for_bit(tmp_path: Path, mmap: bool) -> None:
    loaded = torch.load(written(tmp_path / "a.bin", NAMED), weights_only=True, mmap=mmap)
    assert list(loaded) == list(NAMED)
    for name, (info, words) in NAMED.items():
        tensor = loaded[name]
        assert tuple(tensor.shape) == info.shape
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        raw = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
        assert raw.tobytes() == words.tobytes(), name


def test_the_archive_is_sound_aligned_and_uncompressed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.bin", NAMED)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        raw = path.read_bytes()
        for item in archive.infolist():
            assert item.compress_type == zipfile.ZIP_STORED
            assert item.date_time == (1980, 1, 1, 0, 0, 0)
            start = item.header_offset + 30 + sum(raw[item.header_offset + at] << shift for at, shift in LENGTHS)
            assert start % ALIGNMENT == 0
            assert raw[start : start + item.file_size] == archive.read(item)


LENGTHS = [(26, 0), (27, 8), (28, 0), (29, 8)]


def sparse(path: Path, layout: ZipLayout) -> Path:
    """A file of zeros, laid out: holes, which take no place, where the tensors are."""
    with path.open("wb") as file:
        for offset, piece in layout.pieces.items():
            file.seek(offset)
            file.write(piece)
        file.seek(layout.end)
        file.write(layout.directory(dict.fromkeys((member.name for member in layout.members), 0) | layout.checksums))
    return path


def test_numbers_too_large_for_32_bits_are_held_by_zip64(tmp_path: Path) -> None:
    large, small = TensorInfo(DTYPES["U8"], ((1 << 32) + 5,)), TensorInfo(DTYPES["F32"], (3,))
    layout = plan({"large": large, "behind": small}, {})
    path = sparse(tmp_path / "sparse.bin", layout)
    with path.open("r+b") as file:
        file.seek(layout.homes["behind"].start)
        file.write(np.arange(3, dtype="<f4").tobytes())
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("archive/data/0").file_size == large.nbytes
        assert archive.getinfo("archive/data/1").header_offset > 1 << 32
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded["large"].shape == large.shape
    assert loaded["behind"].tolist() == [0, 1, 2]
    with TorchCheckpoint(path) as checkpoint:
        assert checkpoint.info("large") == large
        assert checkpoint.word_source("large")[(1 << 32) : (1 << 32) + 9].size == 5
        assert checkpoint.words("behind").view("<f4").tolist() == [0, 1, 2]


def test_many_tensors_are_held_by_zip64(tmp_path: Path) -> None:
    info = TensorInfo(DTYPES["U8"], (1,))
    path = sparse(tmp_path / "many.bin", plan({str(at): info for at in range(66_000)}, {}))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 66_003
        assert archive.getinfo("archive/data/65999").file_size == 1


def test_names_torch_can_hold_come_back(tmp_path: Path) -> None:
    info = TensorInfo(DTYPES["U8"], (1,))
    names = ["", "a.b", "ü", "\U0001f600", "new\nline", "x" * 70_000, "\x1b[2J"]
    path = written(tmp_path / "a.bin", {name: (info, some_words(info)) for name in names})
    assert list(torch.load(path, weights_only=True)) == names
    assert list(TorchCheckpoint(path).tensors) == names


def test_tied_tensors_share_one_storage_in_the_file_and_in_memory(tmp_path: Path) -> None:
    info = TensorInfo(DTYPES["F32"], (500, 64))
    tensors = {
        "wte": (info, some_words(info, 1)),
        "other": (info, some_words(info, 2)),
        "head": (info, some_words(info, 1)),
    }
    path = written(tmp_path / "a.bin", tensors, head="wte")
    assert path.stat().st_size < 2.1 * info.nbytes
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == ["wte", "other", "head"]
    assert loaded["wte"].data_ptr() == loaded["head"].data_ptr() != loaded["other"].data_ptr()
    opened = TorchCheckpoint(path)
    assert opened.ties == {"head": "wte"}
    assert opened.words("head").tobytes() == tensors["head"][1].tobytes()


def test_ties_that_lead_on_in_a_circle_or_to_other_shapes_are_written_on_their_own(tmp_path: Path) -> None:
    one, two = TensorInfo(DTYPES["U8"], (3,)), TensorInfo(DTYPES["U8"], (1, 3))
    tensors: Named = {
        name: (info, some_words(info)) for name, info in zip("abcde", (one, one, one, two, one), strict=True)
    }
    path = written(tmp_path / "a.bin", tensors, c="b", b="a", d="a", e="gone")
    assert TorchCheckpoint(path).ties == {"b": "a", "c": "a"}
    assert TorchCheckpoint(written(tmp_path / "b.bin", tensors, a="b", b="a")).ties == {}


def test_a_tie_to_another_shard_is_written_on_its_own(tmp_path: Path) -> None:
    info = TensorInfo(DTYPES["F32"], (10,))
    tensors = {name: (info, some_words(info)) for name in "abc"}
    shards, ties = {"one.bin": ["a", "b"], "two.bin": ["c"]}, {"b": "a", "c": "a"}
    with ShardedTorchWriter(tmp_path, shards, infos(tensors), ties=ties) as writer:
        fill(writer, tensors)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in shards)
    assert one["a"].data_ptr() == one["b"].data_ptr()
    assert two["c"].tolist() == one["a"].tolist()
    opened = diffpack.open_checkpoint(tmp_path)
    assert opened.ties == {"b": "a"}


def test_a_piece_out_of_order_is_refused(tmp_path: Path) -> None:
    info = TensorInfo(DTYPES["U8"], (4,))
    writer = TorchWriter(tmp_path / "a.bin", {"a": info})
    with pytest.raises(ValueError, match="not the next one"):
        writer.write("a", 2, np.zeros(2, np.uint8))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def tied(value: float, **more: Any) -> dict[str, Any]:
    shared = torch.arange(32_000.0).reshape(500, 64) + value
    return {"wte": shared, "lm_head": shared, "body": torch.ones(5), **more}


@pytest.mark.parametrize("target", ["out.bin", "folder"])
def test_apply_ties_what_the_diff_ties_and_what_the_base_ties_unchanged(tmp_path: Path, target: str) -> None:
    (tmp_path / "base").mkdir()
    torch.save(tied(0), tmp_path / "base" / "pytorch_model.bin")
    for number, value in enumerate([tied(1), tied(0, body=torch.zeros(5)), {**tied(0), "wte": torch.zeros(500, 64)}]):
        torch.save(value, tmp_path / f"tuned{number}.bin")
        diff = diffpack.extract(tmp_path / "base", tmp_path / f"tuned{number}.bin")
        diffpack.apply(tmp_path / "base", diff, tmp_path / target, force=True)
        path = tmp_path / target if target.endswith(".bin") else tmp_path / target / "pytorch_model.bin"
        loaded = torch.load(path, weights_only=True)
        assert (loaded["wte"].data_ptr() == loaded["lm_head"].data_ptr()) is (number < 2)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in value.items())


def test_three_names_of_which_the_first_changes_leave_two_tied(tmp_path: Path) -> None:
    shared = torch.arange(1000.0)
    torch.save({"a": shared, "b": shared, "c": shared}, tmp_path / "base.bin")
    torch.save({"a": shared + 1, "b": shared, "c": shared}, tmp_path / "tuned.bin")
    diff = diffpack.extract(tmp_path / "base.bin", tmp_path / "tuned.bin")
    diffpack.apply(tmp_path / "base.bin", diff, tmp_path / "out.bin")
    assert TorchCheckpoint(tmp_path / "out.bin").ties == {"c": "b"}


def test_tensors_of_one_memory_are_tied(tmp_path: Path) -> None:
    shared = torch.arange(1000.0)
    base = {"a": shared, "b": shared, "c": shared[:500], "n": torch.zeros(3)}
    diff = diffpack.extract(base, {**base, "n": torch.ones(3)})
    diffpack.apply(base, diff, tmp_path / "out.bin")
    assert TorchCheckpoint(tmp_path / "out.bin").ties == {"b": "a"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_memory_stays_bounded_while_a_model_is_written(tmp_path: Path) -> None:
    info = TensorInfo(DTYPES["F32"], (32, 1 << 18))  # 32 MiB
    tensors = {f"l{number}": info for number in range(8)}
    with TorchWriter(tmp_path / "base.bin", tensors) as writer:
        for name in tensors:
            writer.write(name, 0, np.zeros(info.words, "<u4"))
    code = (
        "import sys, diffpack; base, out = sys.argv[1:]; diff = diffpack.extract(base, base); "
        "diffpack.apply(base, diff, out); print('done')"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "base.bin"), str(tmp_path / "out.bin")])
    peak = 0
    while job.poll() is None:
        status = Path(f"/proc/{job.pid}/status").read_text()
        peak = max(peak, int(found[1]) if (found := re.search(r"RssAnon:\s+(\d+) kB", status)) else 0)
        time.sleep(0.005)
    assert job.returncode == 0
    assert os.path.getsize(tmp_path / "out.bin") == os.path.getsize(tmp_path / "base.bin") > 256 << 20
    assert 0 < peak < 128 << 10, f"{peak >> 10} MiB for a model of 256 MiB"

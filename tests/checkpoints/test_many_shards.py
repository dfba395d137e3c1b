"""More shards than files can be open are written, a few files at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from diffpack.checkpoints.safetensors_header import make_header
from diffpack.checkpoints.safetensors_writer import ShardedSafetensorsWriter
from diffpack.errors import CheckpointError, ResultMismatchError
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo

resource = pytest.importorskip("resource")

SHARDS = 150


@pytest.fixture
def few_files() -> Iterator[None]:
    """Let this process open few files more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 40, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def header(at: int) -> bytes:
    return make_header({f"w{at}": TensorInfo(DTYPES["F32"], (4,))}, {})


def targets(folder: Path) -> list[tuple[Path, bytes]]:
    return [(folder / f"m-{at:05}.safetensors", header(at)) for at in range(SHARDS)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
@pytest.mark.usefixtures("few_files")
def test_more_shards_than_files_can_be_open_are_written(tmp_path: Path) -> None:
    contents = [
        len(raw).to_bytes(8, "little") + raw + np.full(4, at, "<f4").tobytes()
        for at, (_, raw) in enumerate(targets(tmp_path))
    ]
    sums = {path: hashlib.sha256(contents[at]).hexdigest() for at, (path, _) in enumerate(targets(tmp_path))}
    with ShardedSafetensorsWriter(targets(tmp_path), [(tmp_path / "index.json", b"{}")], sums) as writer:
        for at in range(SHARDS):
            words = np.full(4, at, "<f4").view("<u4")
            writer.write(f"w{at}", 8, words[2:])
            writer.write(f"w{at}", 0, words[:2])
    assert [path.read_bytes() for path, _ in targets(tmp_path)] == contents
    assert (tmp_path / "index.json").read_bytes() == b"{}"


def test_a_shard_with_other_bytes_than_it_should_have_is_told(tmp_path: Path) -> None:
    (path, raw), *_ = targets(tmp_path)
    writer = ShardedSafetensorsWriter([(path, raw)], sha256={path: "0" * 64})
    writer.write("w0", 0, np.zeros(4, "<u4"))
    with pytest.raises(ResultMismatchError, match="L7"):
        writer.publish()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        ShardedSafetensorsWriter(targets(tmp_path / "gone"))

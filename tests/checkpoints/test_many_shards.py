"""More shards than files can be open are read and written, a few files at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.checkpoints.safetensors_writer import ShardedSafetensorsWriter
from diffpack.checkpoints.weights_file import MOST_MAPPED
from diffpack.errors import OutputError, ResultMismatchError
from diffpack.support.pooled_file import MOST_OPEN
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from tests.tools.models import write_shards

resource = pytest.importorskip("resource")

SHARDS = MOST_OPEN + MOST_MAPPED + 50


NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")


@pytest.fixture
def few_files() -> Iterator[None]:
    """Let this process open few files more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + MOST_OPEN + MOST_MAPPED + 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def header(at: int) -> bytes:
    return make_header({f"w{at}": TensorInfo(DTYPES["F32"], (4,))}, {})


def targets(folder: Path) -> list[tuple[Path, bytes]]:
    return [(folder / f"m-{at:05}.safetensors", header(at)) for at in range(SHARDS)]


@NEEDS_PROC
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


@NEEDS_PROC
@pytest.mark.usefixtures("few_files")
def test_a_diff_of_more_shards_than_files_can_be_open_is_made_and_applied(tmp_path: Path) -> None:
    for folder, value in (("base", 0), ("tuned", 1)):
        write_shards(
            tmp_path / folder,
            {f"m-{at:05}.safetensors": {f"w{at}": np.full(4, at + value, np.float32)} for at in range(SHARDS)},
        )
    diff = diffpack.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "d.dpk")
    diffpack.apply(tmp_path / "base", diff, tmp_path / "out")
    for path in (tmp_path / "tuned").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


@NEEDS_PROC
@pytest.mark.usefixtures("few_files")
def test_more_shards_of_torch_than_files_can_be_open_are_read_and_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "base").mkdir()
    weight_map = {f"w{at}": f"m-{at:05}.bin" for at in range(SHARDS)}
    for at, (name, shard) in enumerate(weight_map.items()):
        torch.save({name: torch.full((4,), float(at))}, tmp_path / "base" / shard)
    (tmp_path / "base" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    tuned = {name: np.full(4, at + 1, np.float32) for at, name in enumerate(weight_map)}
    diffpack.apply(tmp_path / "base", diffpack.extract(tmp_path / "base", tuned), tmp_path / "out")
    assert diffpack.fingerprint(tmp_path / "out") == diffpack.fingerprint(tuned)


def test_a_shard_with_other_bytes_than_it_should_have_is_told(tmp_path: Path) -> None:
    (path, raw), *_ = targets(tmp_path)
    writer = ShardedSafetensorsWriter([(path, raw)], sha256={path: "0" * 64})
    writer.write("w0", 0, np.zeros(4, "<u4"))
    with pytest.raises(ResultMismatchError, match="L7"):
        writer.publish()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ShardedSafetensorsWriter(targets(tmp_path / "gone"))


def test_a_file_that_the_system_takes_for_another_does_not_replace_it(tmp_path: Path) -> None:
    """As `A.safetensors` and `a.safetensors` are one file where case is ignored."""
    (path, raw), *_ = targets(tmp_path)
    for files, extra in (([(path, raw), (path, raw)], []), ([(path, raw)], [(path, b"{}")])):
        with pytest.raises(OutputError, match=f"{path.name}: cannot be written: File exists"):
            ShardedSafetensorsWriter(files, extra)


@NEEDS_PROC
@pytest.mark.usefixtures("few_files")
def test_all_words_of_more_shards_than_files_can_be_open_are_held_at_once(tmp_path: Path) -> None:
    """A map holds its file open, so not all of them are mapped."""
    write_shards(tmp_path / "m", {f"m-{at:05}.safetensors": {f"w{at}": np.full(4, at, "<f4")} for at in range(SHARDS)})
    checkpoint = diffpack.open_checkpoint(tmp_path / "m")
    words = [checkpoint.words(f"w{at}") for at in range(SHARDS)]
    assert [part.view("<f4").tolist() for part in words] == [[at] * 4 for at in range(SHARDS)]

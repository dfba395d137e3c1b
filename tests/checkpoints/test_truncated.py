"""A file that is cut short while it is read ends in an error of ours, never in a signal; maps can be left out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffpack
from diffpack.checkpoints import weights_file
from diffpack.checkpoints.weights_file import FileWords, WeightsFile
from diffpack.errors import CheckpointError
from diffpack.tensors.info import BLOCK_WORDS
from tests.tools.mapped import is_mapped
from tests.tools.models import write_safetensors, write_shards

WORDS = 3 * BLOCK_WORDS
ARRAYS = {"a": np.arange(WORDS, dtype=np.float32), "b": np.arange(7, dtype=np.float32)}


def sharded(folder: Path, arrays: Mapping[str, Any]) -> Path:
    return write_shards(folder, {f"{name}.safetensors": {name: array} for name, array in arrays.items()}).parent


def torch_file(path: Path, arrays: Mapping[str, Any], **options: bool) -> Path:
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path, **options)
    return path


def legacy_file(path: Path, arrays: Mapping[str, Any]) -> Path:
    return torch_file(path, arrays, _use_new_zipfile_serialization=False)


def hdf5_file(path: Path, arrays: Mapping[str, Any]) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=8) as file:
        for name, array in arrays.items():
            file[name] = array
    return path


WRITERS: dict[str, tuple[str, Callable[[Path, Mapping[str, Any]], Path]]] = {
    "safetensors": ("m.safetensors", write_safetensors),
    "shards": ("m", sharded),
    "torch": ("m.bin", torch_file),
    "torch legacy": ("m.pt", legacy_file),
    "hdf5": ("m.h5", hdf5_file),
}
LAYOUTS = pytest.mark.parametrize("layout", WRITERS)


def write(tmp_path: Path, layout: str, arrays: Mapping[str, Any] = ARRAYS, name: str = "") -> Path:
    own, writer = WRITERS[layout]
    return writer(tmp_path / (name + own), arrays)


CUT = """
import os, sys
import numpy as np
import diffpack
from diffpack.errors import CheckpointError

path, mapped, words = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
checkpoint = diffpack.open_checkpoint(path, mmap=mapped)
before = checkpoint.words("a")  # the file is mapped by now, if it ever is
source = checkpoint.word_source("a")
assert source[0:9].size == 9
for file in checkpoint.files:
    if not file.name.endswith(".json"):
        os.truncate(file, 4096)
told = 0
last = np.array([words - 1])
reads = [
    lambda: checkpoint.words("a"),
    lambda: source[words - 9 : words],
    lambda: source[last],
    lambda: checkpoint.word_source("a")[0:words],
    lambda: diffpack.fingerprint(checkpoint),
    lambda: diffpack.extract(checkpoint, {}),
    lambda: diffpack.extract({}, checkpoint),
]
for read in reads:
    try:
        read()
    except CheckpointError as error:
        assert "became shorter while it was read" in str(error), error
        told += 1
print(told, len(reads))
"""


@LAYOUTS
@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_that_became_shorter_is_an_error_wherever_it_is_read(tmp_path: Path, layout: str, mapped: bool) -> None:
    path = write(tmp_path, layout)
    job = [sys.executable, "-c", CUT, str(path), str(mapped), str(WORDS)]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told, read = map(int, done.stdout.split())
    assert told == read


@LAYOUTS
def test_apply_onto_a_base_that_becomes_shorter_leaves_nothing(tmp_path: Path, layout: str) -> None:
    base = write(tmp_path, layout)
    diff = diffpack.extract(base, {"a": ARRAYS["a"] + 1, "b": ARRAYS["b"]})
    checkpoint = diffpack.open_checkpoint(base)
    for file in checkpoint.files:
        if file.suffix != ".json":
            os.truncate(file, 4096)
    there = set(tmp_path.iterdir())
    for output in ("out.safetensors", "out.bin"):
        with pytest.raises(CheckpointError, match="became shorter"):
            diffpack.apply(checkpoint, diff, tmp_path / output)
        assert set(tmp_path.iterdir()) == there


RACE = """
import os, sys, threading, time
import diffpack
from diffpack.errors import DiffpackError

base, tuned, size, delay = sys.argv[1], sys.argv[2], os.path.getsize(sys.argv[2]), float(sys.argv[3])
before, after = diffpack.open_checkpoint(base), diffpack.open_checkpoint(tuned)

def cut():
    time.sleep(delay)
    os.truncate(tuned, size // 3)

thread = threading.Thread(target=cut)
thread.start()
try:
    diffpack.extract(before, after)
except DiffpackError as error:
    print("told", error)
thread.join()
"""


@pytest.mark.parametrize("delay", [0, 0.001, 0.005, 0.02, 0.05])
def test_a_file_cut_at_any_moment_of_extract_kills_no_process(tmp_path: Path, delay: float) -> None:
    arrays = {f"t{number}": np.arange(1 << 20, dtype=np.float32) for number in range(8)}
    base = write_safetensors(tmp_path / "base.safetensors", arrays)
    tuned = write_safetensors(tmp_path / "tuned.safetensors", {name: array + 1 for name, array in arrays.items()})
    job = [sys.executable, "-c", RACE, str(base), str(tuned), str(delay)]
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "" or "while it was read" in done.stdout


@LAYOUTS
def test_without_maps_the_same_words_are_read_into_new_memory(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path, layout)
    mapped, read = diffpack.open_checkpoint(path), diffpack.open_checkpoint(path, mmap=False)
    for name, array in ARRAYS.items():
        assert read.words(name).tobytes() == mapped.words(name).tobytes() == array.tobytes()
        assert not read.words(name).flags.writeable
        assert is_mapped(mapped.words(name))
        assert not is_mapped(read.words(name))
    assert diffpack.fingerprint(read) == diffpack.fingerprint(mapped)
    assert read.notes == mapped.notes == []


@LAYOUTS
def test_nothing_is_mapped_before_whole_words_are_asked_for(tmp_path: Path, layout: str) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc here")
    base, tuned = write(tmp_path, layout), write(tmp_path, layout, {"a": ARRAYS["a"] + 1, "b": ARRAYS["b"]}, "t")
    before = diffpack.open_checkpoint(base)
    diff = diffpack.extract(before, diffpack.open_checkpoint(tuned))
    diffpack.apply(before, diff, tmp_path / "out.safetensors")
    diffpack.verify(diff, before)
    assert str(tmp_path) not in maps.read_text()


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EINVAL])
@LAYOUTS
def test_a_file_system_without_maps_is_read_instead_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, code: int
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    path = write(tmp_path, layout)
    monkeypatch.setattr(weights_file.memory_map, "mmap", refuse)
    opened = diffpack.open_checkpoint(path)
    for name, array in ARRAYS.items():
        assert opened.words(name).tobytes() == array.tobytes()
    assert len(opened.notes) == (2 if layout == "shards" else 1)
    assert all("has no memory maps: it is read instead" in note for note in opened.notes)


def test_other_failures_of_a_map_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    opened = diffpack.open_checkpoint(write(tmp_path, "safetensors"))
    monkeypatch.setattr(weights_file.memory_map, "mmap", refuse)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cannot be mapped: Permission denied"):
        opened.words("a")


@LAYOUTS
def test_arrays_stay_valid_after_close_and_reading_then_is_an_error(tmp_path: Path, layout: str) -> None:
    for mmap in (True, False):
        with diffpack.open_checkpoint(write(tmp_path, layout), mmap=mmap) as opened:
            words, source = opened.words("a"), opened.word_source("a")
        assert words.tobytes() == ARRAYS["a"].tobytes()
        with pytest.raises(CheckpointError):
            opened.words("a")
        with pytest.raises(CheckpointError, match="after close"):
            source[0:3]


def test_a_file_replaced_by_another_is_read_on_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path, "safetensors")
    opened = diffpack.open_checkpoint(path)
    os.replace(write_safetensors(tmp_path / "new.safetensors", {"a": np.zeros(3, np.float32)}), path)
    assert opened.words("a").tobytes() == opened.word_source("a")[0:WORDS].tobytes() == ARRAYS["a"].tobytes()


def words_of_a_file(tmp_path: Path, count: int) -> tuple[np.ndarray[Any, Any], FileWords]:
    words = np.random.default_rng(0).integers(0, 1 << 32, count, np.uint32)
    (tmp_path / "raw").write_bytes(b"head." + words.tobytes())
    return words, FileWords(WeightsFile(tmp_path / "raw"), 5, count, np.dtype("<u4"))


@given(data=st.data())
def test_parts_are_those_of_the_array(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    words, source = words_of_a_file(tmp_path_factory.mktemp("parts"), 40)
    bound = st.one_of(st.none(), st.integers(-50, 50))
    part = slice(data.draw(bound), data.draw(bound))
    assert source[part].tolist() == words[part].tolist()
    positions = np.array(sorted(data.draw(st.sets(st.integers(0, 39)))), np.int64)
    assert source[positions].tolist() == words[positions].tolist()


def test_positions_are_read_in_stretches_of_at_most_a_block_and_without_far_words_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, source = words_of_a_file(tmp_path, 3 * BLOCK_WORDS + 5)
    asked: list[int] = []
    plain = WeightsFile.read_words

    def counted(self: WeightsFile, offset: int, count: int, dtype: np.dtype[Any]) -> Any:
        asked.append(count)
        return plain(self, offset, count, dtype)

    monkeypatch.setattr(WeightsFile, "read_words", counted)
    far = np.array([0, 3, BLOCK_WORDS - 1, BLOCK_WORDS, 3 * BLOCK_WORDS + 4])
    for positions in (far, np.arange(words.size), np.empty(0, np.int64)):
        assert source[positions].tobytes() == words[positions].tobytes()
    assert asked == [4, 2, 1, BLOCK_WORDS, BLOCK_WORDS, BLOCK_WORDS, 5]


@pytest.mark.parametrize("positions", [[3, 2], [1, 1], [-1], [40], [0, 41]])
def test_positions_that_are_none_are_refused(tmp_path: Path, positions: list[int]) -> None:
    _, source = words_of_a_file(tmp_path, 40)
    with pytest.raises(IndexError, match="positions"):
        source[np.array(positions)]
    with pytest.raises(IndexError, match="step 1"):
        source[::2]


def test_files_are_read_where_there_is_no_preadv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "safetensors")
    expected = diffpack.fingerprint(path)
    monkeypatch.delattr(os, "preadv")
    assert diffpack.fingerprint(path, threads=4) == expected
    words, source = words_of_a_file(tmp_path, 40)
    os.truncate(tmp_path / "raw", 30)
    assert source[0:6].tolist() == words[:6].tolist()
    with pytest.raises(CheckpointError, match="became shorter"):
        source[0:7]


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none: cannot be read: No such file"):
        WeightsFile(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        WeightsFile(tmp_path).read(0, 1)

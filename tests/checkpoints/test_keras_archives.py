"""Archives of Keras 3: the weights in them are read where they lie, and the rest is said to be in no diff."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import CheckpointError, UsageError
from tests.tools.models import bits

h5py = pytest.importorskip("h5py")

WEIGHTS = {
    "layers/dense/vars/0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layers/dense/vars/1": np.arange(4, dtype=np.float32),
    "optimizer/vars/0": np.arange(1, dtype=np.int64),
}


def archive(path: Path, value: float = 0, method: int = zipfile.ZIP_STORED, chunks: bool = False) -> Path:
    """A file as Keras 3 lays it out."""
    inside = io.BytesIO()
    with h5py.File(inside, "w") as file:
        for name, array in WEIGHTS.items():
            dataset = file.create_dataset(
                name, data=array + array.dtype.type(value), chunks=array.shape if chunks else None
            )
            dataset.parent.attrs["name"] = "vars"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("metadata.json", '{"keras_version": "3.5.0"}')
        packed.writestr("config.json", '{"module": "keras"}')
        packed.writestr("model.weights.h5", inside.getvalue())
    return path


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("chunks", [True, False])
def test_the_weights_are_read_bit_for_bit(tmp_path: Path, mmap: bool, chunks: bool) -> None:
    with diffpack.open_checkpoint(archive(tmp_path / "m.keras", chunks=chunks), mmap=mmap) as opened:
        assert sorted(opened.tensors) == sorted(WEIGHTS)
        for name, array in WEIGHTS.items():
            assert opened.words(name).tobytes() == array.tobytes()
            source = opened.word_source(name)
            assert source[0 : source.size].tobytes() == array.tobytes()
        assert opened.left_out == ["config.json", "metadata.json"]
    assert diffpack.fingerprint(tmp_path / "m.keras") == diffpack.fingerprint(WEIGHTS)


def test_a_result_is_written_as_the_weights_and_no_archive_is(tmp_path: Path) -> None:
    base, tuned = archive(tmp_path / "a.keras"), archive(tmp_path / "b.keras", 1)
    diff = diffpack.extract(base, tuned)
    diffpack.apply(base, diff, tmp_path / "out.weights.h5")
    with h5py.File(tmp_path / "out.weights.h5") as file:
        found = {name: file[name][...] for name in WEIGHTS}
        assert file["layers/dense/vars"].attrs["name"] == "vars"
    assert bits(found) == bits({name: array + array.dtype.type(1) for name, array in WEIGHTS.items()})
    with pytest.raises(UsageError, match=r"read, not written: write \.weights\.h5"):
        diffpack.apply(base, diff, tmp_path / "out.keras")
    diffpack.apply(base, diff, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.weights.h5"]


def test_a_folder_with_an_archive_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    archive(tmp_path / "m" / "best.keras")
    assert sorted(diffpack.open_checkpoint(tmp_path / "m").tensors) == sorted(WEIGHTS)


def test_an_archive_that_was_packed_anew_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"unpack it and name that file"):
        diffpack.open_checkpoint(archive(tmp_path / "m.keras", method=zipfile.ZIP_DEFLATED))


def test_every_cut_and_many_changed_bytes_raise_our_errors_only(tmp_path: Path) -> None:
    whole = archive(tmp_path / "m.keras").read_bytes()
    rng = np.random.default_rng(0)
    cases = [whole[:size] for size in range(0, len(whole), 211)]
    for _ in range(200):
        changed = bytearray(whole)
        changed[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        cases.append(bytes(changed))
    refused = 0
    for content in cases:
        (tmp_path / "x.keras").write_bytes(content)
        try:
            with diffpack.open_checkpoint(tmp_path / "x.keras") as opened:
                for name in opened.tensors:
                    opened.words(name)
        except CheckpointError:
            refused += 1
    assert refused >= len(whole) // 211

"""What an HDF5 file claims of its datasets is compared with what a file of its size can hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.errors import CheckpointError

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize("options", [{"chunks": (1 << 20,)}, {}, {"chunks": (1 << 20,), "compression": "gzip"}])
def test_datasets_nobody_wrote_are_refused_before_they_take_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("small", data=np.arange(3.0))
        file.create_dataset("large", shape=(1 << 33,), dtype="f4", **options)
    with pytest.raises(CheckpointError, match=r"a\.h5: 'large': F32\[8589934592\] in a file of \d+ bytes"):
        Hdf5Checkpoint(tmp_path / "a.h5")


def test_many_small_claims_are_one_large_one(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "abcdefgh":
            file.create_dataset(name, shape=(1 << 20,), dtype="f4")
    with pytest.raises(CheckpointError, match="never written, or it is damaged"):
        Hdf5Checkpoint(tmp_path / "a.h5")


def test_what_packs_as_well_as_deflate_can_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("zeros", data=np.zeros(1 << 24, np.uint8), chunks=(1 << 20,), compression="gzip")
        file.create_dataset("unwritten", shape=(1000,), dtype="f4", fillvalue=2)
    with Hdf5Checkpoint(tmp_path / "a.h5") as checkpoint:
        assert not checkpoint.words("zeros").any()
        assert checkpoint.words("unwritten").view("<f4").tolist() == [2] * 1000


def test_a_shape_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = np.arange(1000, dtype=np.float32)
    raw = (tmp_path / "a.h5").read_bytes()
    count, size = struct.pack("<Q", 1000), struct.pack("<Q", 4000)
    for more in (1001, 2000, 1 << 30):
        changed = raw.replace(count, struct.pack("<Q", more))
        for content in (changed, changed.replace(size, struct.pack("<Q", 4 * more))):
            assert content != raw
            (tmp_path / "b.h5").write_bytes(content)
            with pytest.raises(CheckpointError), Hdf5Checkpoint(tmp_path / "b.h5") as checkpoint:
                checkpoint.words("w")

"""HDF5 checkpoints written and compared, for the tests of them."""

from __future__ import annotations

from pathlib import Path

from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.checkpoints.hdf5_writer import Hdf5Writer
from tests.tools.named_tensors import Named, fill, infos


def write(path: Path, tensors: Named, template: Path | None = None) -> Path:
    with Hdf5Writer(path, infos(tensors), template) as writer:
        fill(writer, tensors)
    return path


def assert_holds(path: Path, tensors: Named) -> None:
    with Hdf5Checkpoint(path) as checkpoint:
        assert dict(checkpoint.tensors) == infos(tensors)
        for name, (info, words) in tensors.items():
            found = checkpoint.words(name)
            assert found.dtype == info.dtype.word
            assert found.ndim == 1
            assert found.flags.aligned
            assert not found.flags.writeable
            assert found.tobytes() == words.tobytes(), name

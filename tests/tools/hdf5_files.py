"""HDF5 checkpoints written and compared, for the tests of them."""

from __future__ import annotations

from pathlib import Path

from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.checkpoints.hdf5_structure_writer import PLAIN, fitted
from diffpack.checkpoints.hdf5_writer import Hdf5Writer
from tests.tools.named_tensors import Named, fill, infos


def write(path: Path, tensors: Named, template: Path | None = None) -> Path:
    """Write tensors: as a template has them, as far as it fits, or into plain groups."""
    structure = PLAIN
    if template is not None:
        with Hdf5Checkpoint(template) as base:
            known = dict(base.tensors)
            structure = fitted(base.structure()[0], infos(tensors), lambda name: known[name] == infos(tensors)[name])
    with Hdf5Writer(path, infos(tensors), structure, replace=True) as writer:
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

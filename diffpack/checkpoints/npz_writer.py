"""NumPy archives, to write: as `numpy.savez` writes them, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffpack.checkpoints.zip_layout import ALIGNMENT, ZipLayout, ZipPlan
from diffpack.checkpoints.zip_writer import ZipFilling, ZipWriter
from diffpack.errors import UnsupportedCheckpointError
from diffpack.support.names import printable
from diffpack.tensors.dtypes import fits_array, numpy_dtype
from diffpack.tensors.info import TensorInfo

_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH_BYTES = 2  # of the header's length, which follows the magic in version 1.0


class NpzWriter(ZipWriter):
    """Write one `.npz` file, an array for each tensor.

    Raises `UnsupportedCheckpointError` for what NumPy cannot hold (bfloat16, floats of 8 bits and less) and for names
    that no archive has, and as `ZipWriter`.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo], *, replace: bool = False) -> None:
        super().__init__(ZipFilling(path, _plan(path, tensors)), replace=replace)


def _plan(path: Path, tensors: Mapping[str, TensorInfo]) -> ZipLayout:
    archive = ZipPlan()
    homes = {}
    for name, info in tensors.items():
        homes[name] = archive.add(f"{name}.npy", _header(f"{path}: {printable(name)}", name, info), info.nbytes)
    return archive.layout(homes)


def _header(where: str, name: str, info: TensorInfo) -> bytes:
    """What stands before an array's entries (version 1.0 of NumPy's format), as long as entries are aligned to."""
    entry = numpy_dtype(info.dtype)
    if entry is None or entry.isbuiltin != 1 or not fits_array(info.dtype, info.shape):
        raise UnsupportedCheckpointError(f"{where}: NumPy cannot hold {info}; write .safetensors or .pt")
    if "\0" in name or not name:
        raise UnsupportedCheckpointError(f"{where}: no name of a file in an archive; write .safetensors or .pt")
    text = repr({"descr": entry.newbyteorder("<").str, "fortran_order": False, "shape": info.shape})
    before = len(_MAGIC) + _LENGTH_BYTES
    padding = -(before + len(text) + 1) % ALIGNMENT
    raw = (text + " " * padding + "\n").encode("ascii")
    return _MAGIC + len(raw).to_bytes(_LENGTH_BYTES, "little") + raw

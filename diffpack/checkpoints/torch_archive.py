"""What a `torch.save` file holds: its pickle, read without running it, and where in the file each storage lies.

There are two formats: a zip archive of stored members (torch 1.6 and later), and pickles followed by the storages.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

from diffpack.checkpoints.stored_tensor import Storage
from diffpack.checkpoints.torch_dtypes import element_bytes
from diffpack.checkpoints.torch_pickle import InertUnpickler
from diffpack.checkpoints.weights_file import WeightsFile
from diffpack.errors import CheckpointError, UnsupportedCheckpointError

_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 30  # bytes before a member's name
_NAME_LENGTH, _EXTRA_LENGTH = slice(26, 28), slice(28, 30)  # in the local header, little-endian
_ENCRYPTED = 1  # flag bit
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_COUNT_BYTES = 8  # before each storage of the legacy format: how many entries it has


def load_torch(file: WeightsFile) -> Any:
    """Read the object a file holds, with `StoredTensor` for tensors, whose storages know their place.

    No tensor's bytes are read, and none is checked: `StoredTensor.check` does. Raises `CheckpointError` for other
    files, for what is not about tensors, and for whatever a damaged or hostile file leads to.
    """
    try:
        return _load_zip(file) if file.read(0, min(len(_ZIP), file.size)) == _ZIP else _load_legacy(file)
    except CheckpointError:
        raise
    except Exception as error:  # what a hostile pickle raises is anyone's guess
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{file.path}: not readable as PyTorch weights: {cause[:200]}") from error


def _load_zip(file: WeightsFile) -> Any:
    with zipfile.ZipFile(_Stream(file)) as archive:
        items, directory = archive.infolist(), archive.start_dir
    members = {item.filename: item for item in items}
    if len(members) < len(items):
        raise CheckpointError(f"{file.path}: damaged: two members of one name")
    if any(name.endswith("/constants.pkl") for name in members):
        raise UnsupportedCheckpointError(
            f"{file.path}: a TorchScript archive, which is a program: save the module's state_dict() instead"
        )
    if any(
        item.compress_type != zipfile.ZIP_STORED or item.file_size != item.compress_size or item.flag_bits & _ENCRYPTED
        for item in items
    ):
        raise CheckpointError(f"{file.path}: has compressed members, which torch does not write")
    programs = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise CheckpointError(f"{file.path}: not a file of torch.save: it has {len(programs)} members data.pkl")
    root = programs[0].removesuffix("data.pkl")

    def place(name: str) -> tuple[int, int]:
        """Where a member's bytes begin, and how many there are."""
        if name not in members:
            raise CheckpointError(f"{file.path}: damaged: it has no member {name}")
        start = members[name].header_offset
        header = file.read(start, _LOCAL_HEADER)
        lengths = (int.from_bytes(header[part], "little") for part in (_NAME_LENGTH, _EXTRA_LENGTH))
        start += _LOCAL_HEADER + sum(lengths)
        size = members[name].file_size
        if header[: len(_ZIP)] != _ZIP or start + size > directory:
            raise CheckpointError(f"{file.path}: damaged: its member {name} is not where the directory says")
        return start, size

    order = b"little" if root + "byteorder" not in members else file.read(*place(root + "byteorder"))
    if order not in (b"little", b"big"):
        raise CheckpointError(f"{file.path}: damaged: its bytes are ordered {order[:10]!r}")
    program = file.read(*place(programs[0]))
    if members[programs[0]].CRC not in (0, zlib.crc32(program)):  # 0: torch was told to leave them out
        raise CheckpointError(f"{file.path}: damaged: the checksum of {programs[0]} is wrong")
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: str, claimed: int) -> Storage:
        if key not in storages:
            storages[key] = Storage(file, key, dtype, claimed, *place(f"{root}data/{key}"), swapped=order == b"big")
        return storages[key]

    return InertUnpickler(io.BytesIO(program), str(file.path), storage).load()


def _load_legacy(file: WeightsFile) -> Any:
    stream = io.BufferedReader(_Stream(file))
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: str, claimed: int) -> Storage:
        return storages.setdefault(key, Storage(file, key, dtype, claimed))

    def load() -> Any:
        return InertUnpickler(stream, str(file.path), storage).load()

    if load() != _LEGACY_MAGIC or load() != _LEGACY_VERSION:
        raise CheckpointError(f"{file.path}: not a file of torch.save")
    load()  # what machine wrote it: the storages are little-endian anyway
    loaded, keys = load(), load()
    if not isinstance(keys, list) or len(set(keys)) < len(keys) or set(keys) != storages.keys():
        raise CheckpointError(f"{file.path}: damaged: its storages are not those of its tensors")
    at = stream.tell()
    for key in keys:
        found = storages[key]
        count = int.from_bytes(file.read(at, _COUNT_BYTES), "little")
        width = element_bytes(found.dtype)
        found.offset, found.nbytes = at + _COUNT_BYTES, count * width
        if count != found.claimed or found.offset + found.nbytes > file.size:
            raise CheckpointError(f"{file.path}: truncated or damaged: its storage {key!r} is not whole")
        at = found.offset + found.nbytes
    return loaded


class _Stream(io.RawIOBase):
    """A weights file from its beginning to its end, as zipfile and pickle read it."""

    def __init__(self, file: WeightsFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise OSError("a place before the file's beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        part = self._file.read(self._at, max(0, min(len(view), self._file.size - self._at)))
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

"""What a `torch.save` file holds: its pickle, read without running it, and where in the file each storage lies.

There are two formats: a zip archive of stored members (torch 1.6 and later), and pickles followed by the storages.
"""

from __future__ import annotations

import io
from typing import Any

from diffpack.checkpoints.file_kinds import named_by_content
from diffpack.checkpoints.stored_tensor import Storage
from diffpack.checkpoints.torch_dtypes import element_bytes
from diffpack.checkpoints.torch_pickle import InertUnpickler
from diffpack.checkpoints.weights_file import FileStream, WeightsFile
from diffpack.checkpoints.zip_members import ZIP, ZipMembers
from diffpack.errors import CheckpointError, UnsupportedCheckpointError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_COUNT_BYTES = 8  # before each storage of the legacy format: how many entries it has


def load_torch(file: WeightsFile) -> Any:
    """Read the object a file holds, with `StoredTensor` for tensors, whose storages know their place.

    No tensor's bytes are read, and none is checked: `StoredTensor.check` does. Raises `CheckpointError` for other
    files, for what is not about tensors, and for whatever a damaged or hostile file leads to.
    """
    with named_by_content(file.path, "torch"):
        return _load(file)


def _load(file: WeightsFile) -> Any:
    try:
        return _load_zip(file) if file.read(0, min(len(ZIP), file.size)) == ZIP else _load_legacy(file)
    except CheckpointError:
        raise
    except Exception as error:  # what a hostile pickle raises is anyone's guess
        unknown = isinstance(error, KeyError)  # what the machine looks its instructions up with
        cause = "it is no pickle, or a damaged one" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{file.path}: not readable as PyTorch weights: {cause[:200]}") from error


def _load_zip(file: WeightsFile) -> Any:
    members = ZipMembers(file)
    if any(name.endswith("/constants.pkl") for name in members.infos):
        raise UnsupportedCheckpointError(
            f"{file.path}: a TorchScript archive, which is a program: save the module's state_dict() instead"
        )
    if not all(map(members.is_stored, members.infos)):
        raise CheckpointError(f"{file.path}: has compressed members, which torch does not write")
    programs = [name for name in members.infos if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise CheckpointError(f"{file.path}: not a file of torch.save: it has {len(programs)} members data.pkl")
    root = programs[0].removesuffix("data.pkl")
    order = file.read(*members.place(root + "byteorder")) if root + "byteorder" in members.infos else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(f"{file.path}: damaged: its bytes are ordered {order[:10]!r}")
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: str, claimed: int) -> Storage:
        if key not in storages:
            place = members.place(f"{root}data/{key}")
            storages[key] = Storage(file, key, dtype, claimed, *place, swapped=order == b"big")
        return storages[key]

    program = io.BytesIO(members.read_stored(programs[0]))
    return InertUnpickler(program, file.size, str(file.path), storage).load()


class _Pickles(io.BufferedReader):
    """A file read by an unpickler, which takes no memory for more bytes than it has, whatever it is asked for."""

    def __init__(self, file: WeightsFile) -> None:
        super().__init__(FileStream(file))
        self._most = file.size

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes, fewer at the end."""
        return super().read(self._most if size is None else min(size, self._most))


def _load_legacy(file: WeightsFile) -> Any:
    stream = _Pickles(file)
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: str, claimed: int) -> Storage:
        return storages.setdefault(key, Storage(file, key, dtype, claimed))

    def load() -> Any:
        return InertUnpickler(stream, file.size, str(file.path), storage).load()

    first = load()
    if isinstance(first, dict):  # a plain pickle; what arrays it holds, it holds whole
        return first
    if first != _LEGACY_MAGIC or load() != _LEGACY_VERSION:
        raise CheckpointError(f"{file.path}: not a file of torch.save")
    load()  # what machine wrote it: the storages are little-endian anyway
    loaded, keys = load(), load()
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)  # before they are hashed
    if not named or len(set(keys)) < len(keys) or set(keys) != storages.keys():
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

"""Read what `torch.save` wrote without running it: nested dicts and lists of numbers and tensors.

A pickle is a program that calls functions by name. Here no name leads to the function it means: each of the few known
ones leads to an inert stand-in of ours that only notes its arguments, any other name is refused. torch is not needed.
Only the zip format (torch 1.6 and later) is read, whose members are stored without compression: what is read is never
larger than the file.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from diffpack.errors import CheckpointError
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES, DType, Words
from diffpack.tensors.info import TensorInfo

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_MOST_DIMENSIONS = 64
_MOST_SHOWN = 80  # letters of a name in an error
_LEFT_OUT = (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)
"""Opcodes that make objects in other ways than calling a stand-in, or look them up past `find_class`."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of the file; `words` is a new array."""

    info: TensorInfo
    words: Words


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: DType
    words: Words


@dataclass(slots=True)
class _NumpyDtype:
    """Stands for numpy.dtype: its kind and width, and the byte order its state sets."""

    code: str
    order: str = "<"

    def set_order(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=")):
            raise ValueError("a strange numpy dtype")
        self.order = state[1]


@dataclass(frozen=True, slots=True)
class _StandIn:
    """What a name in the pickle leads to: can be called, and nothing else."""

    name: str
    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def read_torch_zip(path: Path) -> Any:
    """Read the object a `torch.save` file holds, with `StoredTensor` for tensors.

    Raises `CheckpointError` for other files, other objects, and whatever a damaged or hostile file leads to.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _load(archive, path)
    except CheckpointError:
        raise
    except Exception as error:  # what a hostile pickle raises is anyone's guess
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: not readable as tensors saved by torch 1.6 or later: {cause}") from error


def _load(archive: zipfile.ZipFile, path: Path) -> Any:
    members = {item.filename: item for item in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise CheckpointError(f"{path}: two members of one name")
    if any(
        item.compress_type != zipfile.ZIP_STORED or item.file_size > item.compress_size for item in members.values()
    ):
        raise CheckpointError(f"{path}: has compressed members, which torch does not write")
    programs = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise CheckpointError(f"{path}: not a file of torch.save: it has {len(programs)} members data.pkl")
    root = programs[0].removesuffix("data.pkl")
    order = root + "byteorder"
    if order in members and archive.read(order) != b"little":
        raise CheckpointError(f"{path}: big-endian tensors are not supported")
    program = io.BytesIO(archive.read(programs[0]))  # whole, so that its checksum is compared
    return _Machine(program, archive, root, path).load()


class _Machine(pickle._Unpickler):  # the C one takes memory for any memo index a file names
    """Python's unpickler, with every name replaced."""

    stack: list[Any]

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str, path: Path) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root
        self._path = path
        self._storages: dict[str, Words] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. Raises `CheckpointError` for an unknown one."""
        full = f"{module}.{name}"
        if module == "torch" and name in _STORAGES:
            return _StandIn(name, _refused)
        if full not in _KNOWN:
            raise CheckpointError(
                f"{self._path}: calls {printable(full)}, which is not about tensors: not read, nothing was run"
            )
        return _StandIn(full, _KNOWN[full])

    def persistent_load(self, pid: Any) -> Any:
        """The storage a tensor lies in."""
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _StandIn) or storage.name not in _STORAGES:
            raise ValueError("a storage of an unknown kind")
        if not isinstance(key, str) or not isinstance(count, int):
            raise ValueError("a storage without a name or size")
        dtype = DTYPES[_STORAGES[storage.name]]
        if key not in self._storages:
            self._storages[key] = np.frombuffer(self._archive.read(f"{self._root}data/{key}"), np.uint8)
        raw = self._storages[key]
        if raw.size != count * dtype.word.itemsize:
            raise ValueError(f"a storage of {raw.size} bytes, where {count} {dtype.name} are expected")
        return _Storage(dtype, raw.view(dtype.word))

    def _build(self) -> None:
        """Set the state of an object: only the byte order of a numpy dtype has one."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _NumpyDtype):
            raise ValueError("an object with a state")
        self.stack[-1].set_order(state)

    def _set_items(self) -> None:
        """Put pairs into a dict, each key once: where one stands there twice, readers would not agree."""
        pairs = self.pop_mark()  # type: ignore[attr-defined] # of Python's unpickler, which typeshed leaves out
        _fill(self.stack[-1], list(zip(pairs[::2], pairs[1::2], strict=True)))

    def _make_dict(self) -> None:
        members: dict[Any, Any] = {}
        pairs = self.pop_mark()  # type: ignore[attr-defined] # as above
        _fill(members, list(zip(pairs[::2], pairs[1::2], strict=True)))
        self.stack.append(members)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [(key, value)])

    dispatch = {  # type: ignore[assignment] # typed for the base class itself
        code: action for code, action in pickle._Unpickler.dispatch.items() if bytes([code]) not in _LEFT_OUT
    } | {
        pickle.BUILD[0]: _build, pickle.DICT[0]: _make_dict, pickle.SETITEMS[0]: _set_items,
        pickle.SETITEM[0]: _set_item,
    }  # fmt: skip


def _refused(*_: Any) -> Any:
    raise ValueError("a class where a tensor is expected")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0:
        raise ValueError("a tensor without a storage")
    shape, strides = tuple(size), tuple(stride)
    if (
        len(shape) != len(strides)
        or len(shape) > _MOST_DIMENSIONS
        or any(type(n) is not int or n < 0 for n in shape + strides)
    ):
        raise ValueError("a tensor of an impossible shape")
    count = prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if count > storage.words.size or (count and last >= storage.words.size):
        raise ValueError("a tensor that reaches out of its storage")
    width = storage.words.itemsize
    words = np.empty(0, storage.dtype.word)
    if count:
        steps = tuple(step * width for step in strides)
        words = np.lib.stride_tricks.as_strided(storage.words[offset:], shape, steps).reshape(-1).copy()
    return StoredTensor(TensorInfo(storage.dtype, shape), words)


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, StoredTensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _size(numbers: Any = ()) -> tuple[Any, ...]:
    return tuple(numbers)


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:
    members: dict[Any, Any] = {}
    _fill(members, list(items))
    return members


def _fill(members: Any, pairs: list[tuple[Any, Any]]) -> None:
    if not isinstance(members, dict):
        raise ValueError("items of what is no dict")
    for key, value in pairs:
        if key in members:
            raise ValueError(f"{str(key)[:_MOST_SHOWN]!r} stands there twice")
        members[key] = value


def _latin1(text: Any, coding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise ValueError("bytes in an unknown coding")
    return text.encode("latin1")


def _numpy_dtype(code: Any, *_: Any) -> _NumpyDtype:
    if code not in _SCALARS:
        raise ValueError("a number of an unknown kind")
    return _NumpyDtype(code)


_SCALARS = {
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "f8": "d",
    "f4": "f",
}


def _numpy_scalar(dtype: Any, raw: Any) -> int | float:
    """A numpy number as Python's: the first gap of a list often is one."""
    if not isinstance(dtype, _NumpyDtype) or not isinstance(raw, bytes):
        raise ValueError("a number of an unknown kind")
    order = ">" if dtype.order == ">" else "<"
    value: int | float = struct.unpack(order + _SCALARS[dtype.code], raw)[0]
    return value


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _latin1,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}

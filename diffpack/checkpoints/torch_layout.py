"""How a `torch.save` file is laid out: a zip archive of stored members, planned beforehand (`zip_layout`).

A pickle builds the dict (`data.pkl`), and there is one member for each storage (`data/0`, `data/1`, ...). Pickle and
members are those torch writes, less the ones that tell its version: the same tensors give the same bytes with any
torch, or without.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod

from diffpack.checkpoints.torch_dtypes import STORAGES, TORCH, torch_shape
from diffpack.checkpoints.zip_layout import ZipLayout, ZipPlan
from diffpack.tensors.info import TensorInfo

_ROOT = "archive/"


def plan(tensors: Mapping[str, TensorInfo], ties: Mapping[str, str]) -> ZipLayout:
    """Lay tensors out in their order; all must have a `torch_shape`.

    `ties` lead from names to those of the same tensor, which are among `tensors` and not among `ties`.
    """
    archive = ZipPlan()
    keys: dict[str, str] = {}
    for name in tensors:
        if name not in ties:
            keys[name] = str(len(keys))
    keys |= {name: keys[first] for name, first in ties.items()}
    for name, content in (("data.pkl", _pickle(tensors, keys)), ("byteorder", b"little"), ("version", b"3\n")):
        archive.add(_ROOT + name, content)
    homes = {
        name: archive.add(f"{_ROOT}data/{key}", b"", tensors[name].nbytes)
        for name, key in keys.items()
        if name not in ties
    }
    return archive.layout(homes | {name: homes[first] for name, first in ties.items()})


def _pickle(tensors: Mapping[str, TensorInfo], keys: Mapping[str, str]) -> bytes:
    """The program that builds a dict of tensors, as `torch.save` writes it (protocol 2)."""
    items = b"".join(_text(name) + _tensor(info, keys[name]) for name, info in tensors.items())
    return b"\x80\x02}" + (b"(" + items + b"u" if items else b"") + b"."


def _tensor(info: TensorInfo, key: str) -> bytes:
    dtype, shape = TORCH[info.dtype.name], torch_shape(info.dtype.name, info.shape)
    assert shape is not None
    strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    known = STORAGES.get(dtype)
    storage = _global("torch", known) if known else _global("torch.storage", "UntypedStorage")
    count = prod(shape) if known else info.nbytes
    place = b"(" + _text("storage") + storage + _text(key) + _text("cpu") + _integer(count) + b"tQ"
    no_hooks = _global("collections", "OrderedDict") + b")R"
    arguments = place + _integer(0) + _tuple(shape) + _tuple(strides) + b"\x89" + no_hooks
    if known:
        return _global("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"
    return _global("torch._utils", "_rebuild_tensor_v3") + b"(" + arguments + _global("torch", dtype) + b"tR"


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _tuple(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


def _integer(number: int) -> bytes:
    """A whole number from 0, in as few bytes as a pickle can."""
    if number < 1 << 8:
        return b"K" + struct.pack("<B", number)
    if number < 1 << 16:
        return b"M" + struct.pack("<H", number)
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + struct.pack("<B", len(raw)) + raw

"""What was found, and what is tried by hand: small inputs that ask for much, or that ended in foreign errors.

Each is an input of a target; those that a fuzzer found are in the folder `kept`, called after their target.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tests.fuzz.archives import archive
from tests.fuzz.packs import pack, unpack
from tests.fuzz.target import all_targets, scratch

KEPT = Path(__file__).parent / "kept"
_DOUBLED = (pickle.DUP + pickle.TUPLE2) * 40
"""What leads from anything to 2^40 of it, in shared tuples."""


def _text(data: bytes) -> bytes:
    return b"X" + len(data).to_bytes(4, "little") + data


def _plain(program: bytes) -> bytes:
    """A dict whose value a program puts there."""
    return b"\x80\x04}" + _text(b"a") + program + b"s."


def _keyed(program: bytes) -> bytes:
    """A dict whose key a program puts there."""
    return b"\x80\x04}" + program + b"K\1s."


def _bytearrays() -> bytes:
    return _plain(b"\x96" + (3 << 30).to_bytes(8, "little"))


def _copies() -> bytes:
    """A text of 300 kB, encoded again and again."""
    start = b"c_codecs\nencode\nq\0" + _text(b"x" * 300_000) + _text(b"latin1") + b"\x86q\1"
    return (
        b"\x80\x04}"
        + start
        + b"00("
        + b"".join(b"J" + at.to_bytes(4, "little") + b"h\0h\1R" for at in range(60_000))
        + b"u."
    )


def _long_keys() -> bytes:
    """Very many things under a key of 200 kB."""
    inner = b"".join(b"J" + at.to_bytes(4, "little") + b"K\1" for at in range(100_000))
    return b"\x80\x04}" + _text(b"k" * 200_000) + b"}(" + inner + b"us."


def _deep(start: bytes, step: bytes, times: int) -> bytes:
    return b"\x80\x04" + start + step * times + b"."


def torch_file(program: bytes, storages: dict[str, bytes]) -> bytes:
    """A zip archive as torch.save writes it, with any pickle."""
    members = {"a/data.pkl": program, **{f"a/data/{key}": data for key, data in storages.items()}}
    return archive(members, packed=False)


def _tensor(shape: bytes, strides: bytes, first: bytes = b"K\0", count: int = 250_000) -> bytes:
    """What makes a tensor of the storage "0"; shapes are programs that make tuples."""
    storage = b"(" + _text(b"storage") + b"ctorch\nFloatStorage\n" + _text(b"0") + _text(b"cpu")
    storage += b"J" + count.to_bytes(4, "little") + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + first + shape + strides + b"\x89}tR"


def _stride_nothing() -> bytes:
    """A tensor of 2^40 entries over one."""
    big = b"\x8a\6" + (1 << 40).to_bytes(6, "little")
    return torch_file(_plain(_tensor(big + b"\x85", b"K\0\x85")), {"0": bytes(1_000)})


def _many_views() -> bytes:
    """Twenty thousand names of one storage of 400 kB."""
    one = _tensor(b"J" + (100_000).to_bytes(4, "little") + b"\x85", b"K\1\x85", count=100_000)
    items = b"".join(_text(b"%06d" % at) + b"h\1" for at in range(20_000))
    return torch_file(b"\x80\x04" + one + b"q\x010}(" + items + b"u.", {"0": bytes(400_000)})


def _long_numbers() -> bytes:
    """A tensor whose dimensions have a million bits each."""
    digits = b"\x8b" + (100_000).to_bytes(4, "little") + b"\x7f" * 100_000
    return torch_file(
        _plain(digits + b"q\x020" + _tensor(b"(" + b"h\2" * 60 + b"t", b"(" + b"K\1" * 60 + b"t")), {"0": b""}
    )


def _long_shapes() -> bytes:
    """Very many tensors that share a shape of very many dimensions."""
    shape = b"(" + b"K\1" * 100_000 + b"tq\x020"
    one = b"ctorch._utils\n_rebuild_tensor_v2\nq\x030"
    storage = b"(" + _text(b"storage") + b"ctorch\nFloatStorage\n" + _text(b"0") + _text(b"cpu") + b"K\1tQq\x040"
    calls = b"".join(_text(b"%06d" % at) + b"h\3(h\4K\0h\2h\2\x89}tR" for at in range(20_000))
    return torch_file(b"\x80\x04" + shape + one + storage + b"}(" + calls + b"u.", {"0": bytes(4)})


def _overlapping() -> bytes:
    """An archive whose directory names one member of 300 kB ten thousand times."""
    data = bytearray(archive({"a/data.pkl": b"\x80\x04}.", "a/data/0": b"\1" * 300_000}, packed=False))
    end = data.rindex(b"PK\5\6")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    last = bytes(data[data.rindex(b"PK\1\2", 0, end) : end])
    more = b"".join(last.replace(b"a/data/0", b"a/%06d" % at) for at in range(5_000))
    body = bytes(data[start:end]) + more
    count = 2 + 5_000
    return bytes(data[:start]) + body + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(body), start, 0)


def _packed(header: bytes, length: int) -> bytes:
    """An array of zeros that packs to next to nothing."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.npy", "w", force_zip64=True) as member:
        member.write(header)
        for _ in range(length >> 20):
            member.write(bytes(1 << 20))
    return out.getvalue()


def _npy(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue()


def _hdf5_zeros() -> bytes:
    import h5py

    path = scratch() / "zeros.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.zeros(600 << 20, np.uint8), chunks=(1 << 20,), compression=9)
    return path.read_bytes()


def _twins() -> bytes:
    """An entry of eighty thousand members that nobody knows, of which the last stands there twice."""
    names = [f'"{at:06}":0' for at in range(80_000)]
    text = ('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],' + ",".join([*names, names[-1]]) + "}}").encode()
    return len(text).to_bytes(8, "little") + text


def _index(change: Callable[[dict[str, object]], object]) -> bytes:
    files = unpack(all_targets()["shards"].seeds()[0])
    name = "model.safetensors.index.json"
    index = json.loads(files[name])
    change(index)
    return pack({**files, name: json.dumps(index).encode()})


def _shard_called(name: str) -> bytes:
    return _index(lambda index: index["weight_map"].update(embed=name))  # type: ignore[attr-defined]


def _sglang_twins() -> bytes:
    files = unpack(all_targets()["bridge-sglang"].seeds()[0])
    name = "model.safetensors.index.json"
    more = ",".join(f'"{at:06}":0' for at in range(80_000))
    return pack({**files, name: f'{{{more},"079999":0}}'.encode()})


def _hdf5_statement() -> bytes:
    """A statement of 250 MB of `[]`, packed."""
    import h5py

    path = scratch() / "x.h5"
    path.write_bytes(unpack(all_targets()["bridge-hdf5"].seeds()[0])["x.h5"])
    with h5py.File(path, "a") as file:
        task = next(iter(file["tasks"].values()))
        kept = bytes(task["statement"][()])
        del task["statement"]
        text = kept[:-1] + b',"zz":[' + b"[]," * (80 << 20) + b"[]]}"
        task.create_dataset("statement", data=np.frombuffer(text, np.uint8), chunks=(1 << 20,), compression=9)
    return pack({"x.h5": path.read_bytes()})


def _scipy_statement() -> bytes:
    files = unpack(all_targets()["bridge-scipy-whole"].seeds()[0])
    text = files["diffpack.json"].rstrip()
    return pack({**files, "diffpack.json": text[:-1] + b',"zz":[' + b"[]," * 300_000 + b"[]]}"})


def _sft(program: bytes) -> bytes:
    return pack({"pytorch_diff.bin": program})


def _sft_of(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return _sft(out.getvalue())


def _sft_sizes() -> bytes:
    """A size that is a tuple of very many tuples."""
    values = _tensor(b"K\1\x85", b"K\1\x85", count=1)
    item = (
        b"}(" + _text(b"size") + b"K\1" + _DOUBLED + _text(b"index_steps") + b"]K\0a" + _text(b"values") + values + b"u"
    )
    program = b"\x80\x04}" + _text(b"diffs") + b"}" + _text(b"encoder.weight") + item + b"ss."
    return _sft(torch_file(program, {"0": bytes(4)}))


def _settings(kind: str, **settings: object) -> bytes:
    files = unpack(all_targets()[f"bridge-{kind}"].seeds()[0])
    name = "adapter_config.json"
    return pack({**files, name: json.dumps(json.loads(files[name]) | settings).encode()})


BY_HAND: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a bytearray of 3 GB": ("torch-pickle", _bytearrays),
    "bytes of a terabyte": ("torch-pickle", lambda: _plain(pickle.BINBYTES8 + (1 << 40).to_bytes(8, "little"))),
    "a frame of a terabyte": ("torch-pickle", lambda: _plain(pickle.FRAME + (1 << 40).to_bytes(8, "little"))),
    "a key of 2^40 tuples": ("torch-pickle", lambda: _keyed(b"K\1" + _DOUBLED)),
    "a key of a hundred thousand bits": (
        "torch-pickle",
        lambda: _keyed(b"\x8b" + (100_000).to_bytes(4, "little") + b"\x7f" * 100_000),
    ),
    "a device of 2^40 tuples": ("torch-pickle", lambda: _plain(b"ctorch\ndevice\nK\1" + _DOUBLED + b"R")),
    "a set of 2^40 tuples": ("torch-pickle", lambda: _plain(b"\x8f(K\1" + _DOUBLED + b"\x90")),
    "a frozen set of 2^40 tuples": ("torch-pickle", lambda: _plain(b"(K\1" + _DOUBLED + b"\x91")),
    "a byte order of 2^40 tuples": (
        "torch-pickle",
        lambda: _plain(b"cnumpy\ndtype\nX\2\0\0\0f4\x85R(K\3K\1" + _DOUBLED + b"tb"),
    ),
    "copies of a text": ("torch-pickle", _copies),
    "a long key for very many": ("torch-pickle", _long_keys),
    "a list in a list in a list": ("torch-pickle", lambda: _deep(b"}X\1\0\0\0a]", b"]", 300_000)),
    "a tuple in a tuple in a tuple": ("torch-pickle", lambda: _deep(b"K\1", b"\x85", 500_000)),
    "a dict in a dict in a dict": (
        "torch-pickle",
        lambda: b"\x80\x04" + b"}K\1" * 100_000 + b"}" + b"s" * 100_000 + b".",
    ),
    "marks": ("torch-pickle", lambda: b"\x80\x04" + b"(" * 900_000 + b"."),
    "a tensor of no stride": ("torch-zip", _stride_nothing),
    "very many names of one storage": ("torch-zip", _many_views),
    "dimensions of a million bits": ("torch-zip", _long_numbers),
    "tensors that share a long shape": ("torch-zip", _long_shapes),
    "members that lie over each other": ("torch-zip", _overlapping),
    "the same, of a sparse fine-tuning": ("bridge-composable-sft", lambda: _sft(_overlapping())),
    "a size of 2^40 tuples": ("bridge-composable-sft", _sft_sizes),
    "an array of 600 MB of zeros": ("npz", lambda: _packed(_npy((150 << 20,)), 600 << 20)),
    "a header of 600 MB": ("npz", lambda: _packed(b"\x93NUMPY\2\0" + (600 << 20).to_bytes(4, "little"), 600 << 20)),
    "a dataset of 600 MB of zeros": ("hdf5", _hdf5_zeros),
    "twins at the end of a header": ("safetensors", _twins),
    "twins at the end of an index": ("bridge-sglang", _sglang_twins),
    "a statement of 250 MB of lists": ("bridge-hdf5", _hdf5_statement),
    "a statement of a megabyte of lists": ("bridge-scipy-whole", _scipy_statement),
    "modules to save that are a number": ("bridge-shira", partial(_settings, "shira", modules_to_save=5)),
    "the same of LoRA": ("bridge-lora", partial(_settings, "lora", modules_to_save=5)),
    "an alpha of 400 digits": ("bridge-lora", partial(_settings, "lora", lora_alpha=10**400)),
    "a beginning that is a list": ("bridge-lora", partial(_settings, "lora", init_lora_weights=[])),
    "layers that are a number": (
        "bridge-lora",
        partial(_settings, "lora", target_modules=["q"], layers_to_transform=[1], layers_pattern=7),
    ),
    "a shard with a name of 300 letters": ("shards", partial(_shard_called, "y" * 300)),
    "a shard with a name of 10^6 letters": ("shards", partial(_shard_called, "y" * 900_000)),
    "a shard with NUL in its name": ("shards", partial(_shard_called, "a\0b")),
    "a shard with a surrogate in its name": ("shards", partial(_shard_called, "a\ud800b")),
    "a tensor with a surrogate in its name": (
        "shards",
        lambda: _index(lambda index: index["weight_map"].update({"\ud800": "m-0.safetensors"})),  # type: ignore[attr-defined]
    ),
    "a tensor with a name of 10^6 letters": (
        "shards",
        lambda: _index(lambda index: index["weight_map"].update({"n" * 900_000: "m-0.safetensors"})),  # type: ignore[attr-defined]
    ),
}
"""What each asks for, the target that reads it, and what makes it."""


def kept() -> dict[str, tuple[str, bytes]]:
    """What fuzzers found, by the file's name: the target, and the input."""
    names = sorted(all_targets(), key=len, reverse=True)
    found = {}
    for path in sorted(KEPT.iterdir()):
        target = next(name for name in names if path.name.startswith(name))
        found[path.name] = target, path.read_bytes()
    return found

"""Checkpoints of every layout: opened, every tensor read, HDF5's structure too."""

from __future__ import annotations

import io
import pickle
import random
from collections import OrderedDict
from functools import cache, partial

import numpy as np

from diffpack.checkpoints import open_checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from tests.fuzz.archives import archive, change_archive
from tests.fuzz.changes import BYTES, Change, one_of, token
from tests.fuzz.packs import change_one, lay_out, pack
from tests.fuzz.programs import change_program
from tests.fuzz.target import HDF5, Target, placed, scratch
from tests.tools import ORACLES
from tests.tools.models import model, write_safetensors, write_shards

_MOST_SEED = 100_000
_INPUTS = ORACLES / "inputs"


def _frozen(*endings: str) -> list[bytes]:
    """Small files that other tools wrote."""
    paths = [path for path in sorted(_INPUTS.rglob("*")) if path.is_file() and path.name.endswith(endings)]
    return [path.read_bytes() for path in paths if path.stat().st_size <= _MOST_SEED]


def _read(name: str, data: bytes) -> None:
    checkpoint = open_checkpoint(placed(name, data))
    try:
        fingerprint(checkpoint, threads=1)
        if checkpoint.layout == "hdf5":
            checkpoint.structure()
    finally:
        checkpoint.close()


def _read_shards(data: bytes) -> None:
    folder = scratch() / "shards"
    folder.mkdir(exist_ok=True)
    try:
        lay_out(data, folder)
    except ValueError:  # no pack of files
        return
    checkpoint = open_checkpoint(folder / "model.safetensors.index.json")
    try:
        fingerprint(checkpoint, threads=1)
    finally:
        checkpoint.close()


def _change_header(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON of a safetensors header, and make its length right again."""
    size = int.from_bytes(data[:8], "little")
    header = token(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


SAFETENSORS: Change = one_of([_change_header, _change_header, _change_header, BYTES])
PROGRAM: Change = one_of([change_program, change_program, change_program, BYTES])
TORCH_ZIP: Change = change_archive({".pkl": PROGRAM, "byteorder": token})


def _safetensors() -> list[bytes]:
    return [write_safetensors(scratch() / "seed", model(), {"format": "pt"}).read_bytes()]


def _shards() -> list[bytes]:
    whole = model()
    names = sorted(whole)
    shards = {f"m-{at}.safetensors": {name: whole[name] for name in names[at::2]} for at in (0, 1)}
    index = write_shards(scratch() / "seed-shards", shards)
    return [pack({path.name: path.read_bytes() for path in (index, *(index.parent / name for name in shards))})]


@cache
def _torch() -> list[bytes]:
    found = _frozen(".bin", ".pt", ".pth", ".ckpt")
    return [data for data in found if data.startswith(b"PK")]


@cache
def _pickles() -> list[bytes]:
    """Files from before torch 1.6, and plain pickles of arrays."""
    found = [data for data in _frozen(".bin", ".pt", ".pth", ".ckpt", ".pkl") if not data.startswith(b"PK")]
    arrays = OrderedDict(w=np.arange(6, dtype=np.float32).reshape(2, 3), s={"b": np.ones(3, np.float16)})
    return [*found, *(pickle.dumps(arrays, protocol) for protocol in (2, 4, 5))]


def _change_pickles(data: bytes, rng: random.Random) -> bytes:
    return change_program(data, rng) if rng.random() < 0.8 else BYTES(data, rng)


def _npz() -> list[bytes]:
    found = []
    for save in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        save(out, **model(), turned=np.asfortranarray(np.ones((3, 4))), big=np.arange(4, dtype=">f4"))
        found.append(out.getvalue())
    return found


@cache
def _hdf5() -> list[bytes]:
    import h5py

    path = scratch() / "seed.h5"
    found = _frozen(".h5", ".hdf5")
    for options in ({}, {"compression": 4, "chunks": True}):
        with h5py.File(path, "w") as file:
            for name, array in model().items():
                packed = options if array.size and array.ndim else {}
                file.create_dataset(f"a/{name}", data=array, **packed).attrs["n"] = [1, 2]
            file["link"] = h5py.SoftLink("/a")
            file.attrs["names"] = np.array([b"x", b"yy"])
        found.append(path.read_bytes())
    return found


def _keras() -> list[bytes]:
    made = [archive({"config.json": b"{}", "model.weights.h5": data}, packed=False) for data in _hdf5()[-2:]]
    return [*_frozen(".keras"), *made]


_ARRAYS = change_archive({".npy": one_of([token, BYTES])}, packed=True)
TARGETS = [
    Target("safetensors", _safetensors, SAFETENSORS, partial(_read, "x.safetensors")),
    Target("shards", _shards, change_one({".json": token, ".safetensors": SAFETENSORS}), _read_shards),
    Target("torch-zip", _torch, TORCH_ZIP, partial(_read, "x.pt")),
    Target("torch-pickle", _pickles, _change_pickles, partial(_read, "x.bin")),
    Target("npz", _npz, _ARRAYS, partial(_read, "x.npz")),
    Target("hdf5", _hdf5, BYTES, partial(_read, "x.h5"), HDF5),
    Target("keras", _keras, change_archive({}), partial(_read, "x.keras"), HDF5),
]

"""The readers of other tools' formats: a diff is made of what they hold."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

import diffpack
from tests.fuzz.archives import change_archive
from tests.fuzz.changes import BYTES, Change, one_of, token
from tests.fuzz.packs import change_one, lay_out, pack, pack_folder
from tests.fuzz.target import HDF5, OURS, Target, scratch
from tests.fuzz.targets.checkpoints import SAFETENSORS, TORCH_ZIP
from tests.tools import ORACLES
from tests.tools.models import tune

_BRIDGES = ORACLES / "bridges"
_ARRAYS = change_archive({".npy": one_of([token, BYTES])}, packed=True)
_CHANGE = change_one({".json": token, ".safetensors": SAFETENSORS, ".bin": TORCH_ZIP, ".npz": _ARRAYS})
_BASE = {
    "w": np.arange(24, dtype=np.float32).reshape(4, 6),
    "h": np.linspace(0, 1, 15, dtype=np.float16).reshape(3, 5),
    "ids": np.arange(7, dtype=np.int64),
}


def _convert(source: str, case: str, data: bytes) -> None:
    """Read a folder, or the one file in it, as a diff of the base it was made for."""
    folder = scratch() / "source"
    folder.mkdir(exist_ok=True)
    try:
        lay_out(data, folder)
    except ValueError:  # no pack of files
        return
    files = sorted(folder.iterdir())
    path = files[0] if len(files) == 1 else folder
    base = _BRIDGES / case / "base.safetensors" if case else _BASE
    done = diffpack.convert(path, base=base, from_=source, threads=1)
    assert done.diff is not None
    done.diff.close()


def _adapters(case: str) -> list[bytes]:
    return [pack_folder(_BRIDGES / case / "adapter")]


@cache
def _exported(to: str, name: str) -> list[bytes]:
    """What the library itself writes of a diff."""
    out = scratch() / f"{to}-{name}"
    with diffpack.extract(_BASE, tune(_BASE, 0.4)) as diff:
        diffpack.convert(diff, out, to=to, base=_BASE, force=True)
    return [pack_folder(out) if out.is_dir() else pack({name: out.read_bytes()})]


def _matrices() -> list[bytes]:
    return [pack_folder(_BRIDGES / "scipy" / "matrices")]


def _bridge(name: str, seeds: object, source: str, case: str, change: Change = _CHANGE) -> Target:
    most = HDF5 if source == "hdf5" else OURS
    return Target(f"bridge-{name}", seeds, change, partial(_convert, source, case), most)  # type: ignore[arg-type]


def _sft() -> list[bytes]:
    return [pack({"pytorch_diff.bin": (_BRIDGES / "composable-sft" / "pytorch_diff.bin").read_bytes()})]


def _delta(case: str) -> list[bytes]:
    return [pack_folder(_BRIDGES / case / "delta")]


TARGETS = [
    _bridge("composable-sft", _sft, "composable-sft", "composable-sft"),
    _bridge("lora", partial(_adapters, "lora"), "peft-lora", "lora"),
    _bridge("dora", partial(_adapters, "lora-dora"), "peft-lora", "lora-dora"),
    _bridge("shira", partial(_adapters, "shira"), "peft-shira", "shira"),
    _bridge("scipy", _matrices, "scipy", "scipy"),
    _bridge("scipy-whole", partial(_exported, "scipy", "folder"), "scipy", ""),
    _bridge("sglang", partial(_delta, "delta-xor"), "sglang-delta", "delta-xor"),
    _bridge("hdf5", partial(_exported, "hdf5", "x.h5"), "hdf5", ""),
    _bridge("sparse", partial(_exported, "sparse-safetensors", "x.safetensors"), "sparse-safetensors", ""),
]

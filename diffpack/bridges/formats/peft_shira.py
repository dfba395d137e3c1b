"""PEFT SHiRA adapters: for each 2-D weight `shira_weight` (floats to add) and `shira_indices` (int32, 2 x count).

Read as float values to add, as they stand there. Written from a diff that changes 2-D float weights only: PEFT makes
every layer hold r x (rows + columns) entries, so layers with fewer changes are filled up with zeros. The layout is
that of PEFT 0.21.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.algebra.checks import check_base
from diffpack.algebra.delta_source import Source
from diffpack.algebra.sums import Sums
from diffpack.bridges.bridge import Bridge, Export, Import
from diffpack.bridges.exporting import note_left_out
from diffpack.bridges.formats.peft_adapter import Adapter, is_adapter, open_adapter, write_adapter
from diffpack.bridges.formats.peft_base import is_embedding, with_names_of
from diffpack.bridges.formats.peft_changes import AdapterChanges
from diffpack.bridges.formats.peft_keys import CALLED, PREFIX
from diffpack.bridges.formats.peft_targets import note_layers_without
from diffpack.bridges.formats.peft_turned import stored_turned
from diffpack.bridges.importing import Added, BaseTensor, sorted_positions, write_patch
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.format.values import floats
from diffpack.result.result import Result
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import DTYPES, Positions, to_float
from diffpack.tensors.info import TensorInfo

_KIND = "SHIRA"
_VALUES, _INDICES = ".shira_weight", ".shira_indices"
_WEIGHT = ".weight"
_LINEAR = "PEFT's SHiRA adapts linear layers (torch.nn.Linear) alone; a diff does not tell whether these are"
"""What no diff tells of layers that may be linear."""
_MOST_ROWS = 1 << 31  # rows and columns are int32
_EXACT_F32 = 1 << 24  # PEFT writes indices as float32 on Windows; beyond this they are wrong


def _read(job: Import, file: BinaryIO) -> None:
    adapter = open_adapter(job.source, _KIND)
    job = with_names_of(job, adapter)
    sums = Sums(job.clip)
    changes = AdapterChanges(adapter, job, sums)
    adapted = []
    for name in sorted(adapter.keys):
        module = name.removesuffix(_VALUES)
        if name.endswith(_INDICES):
            if name.removesuffix(_INDICES) + _VALUES not in adapter.keys:
                raise CorruptFileError(f"{job.source}: {printable(name)} has no values")
        elif name.endswith(_VALUES):
            changes.add(module + _WEIGHT, name, partial(_added, adapter, module))
            adapted.append(changes.target(module + _WEIGHT))
        else:
            changes.replace(name)
    makes = changes.makes()
    note_layers_without(job, adapter.config, adapted)
    write_patch(job, file, makes, {}, aliases=changes.ties(makes), sums=sums)


def _added(adapter: Adapter, module: str, base: BaseTensor) -> Added:
    where = f"{adapter.path}: {printable(module)}"
    info, _ = base
    if len(info.shape) != 2:
        raise WrongBaseError(f"{where}: the base's weight is {info}, not a matrix", (module + _WEIGHT,))
    key = adapter.keys[module + _VALUES]
    stored = adapter.weights.info(key)
    if not stored.dtype.arithmetic or len(stored.shape) != 1:
        raise CorruptFileError(f"{where}: values are a list of floats, not {stored}")
    rows, columns = _places(adapter, module, stored.words, where)
    limits = (info.shape[0], info.shape[1])
    for places, limit in zip((rows, columns), limits, strict=True):
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < limit:
            raise CorruptFileError(f"{where}: an index outside the base's {info}")
    positions, order = sorted_positions(rows * limits[1] + columns, info.words, where)
    values = to_float(adapter.weights.words(key), stored.dtype)
    return Added(positions, values if order is None else values[order])


def _places(
    adapter: Adapter, module: str, count: int, where: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    key = adapter.keys.get(module + _INDICES)
    if key is None:
        raise CorruptFileError(f"{where}: has no indices")
    info = adapter.weights.info(key)
    if info.shape != (2, count) or info.dtype.name not in ("I32", "I64", "F32"):
        raise CorruptFileError(f"{where}: indices are {info}, not I32[2, {count}]")
    words = adapter.weights.words(key)
    if info.dtype.name == "F32":
        values = to_float(words, info.dtype)
        if not ((values >= 0) & (values < _EXACT_F32) & (values == np.floor(values))).all():
            raise CorruptFileError(f"{where}: indices that are no whole numbers")
        places = values.astype(np.int64)
    else:
        places = words.view(info.dtype.step).astype(np.int64)
    return places[:count], places[count:]


def _write(job: Export) -> bool:
    diff = job.diff
    if job.base is not None:
        check_base(diff, job.base, job.threads)
    _refuse(job)
    source = Source(diff, job.base)
    changes: dict[str, tuple[TensorInfo, Positions, npt.NDArray[np.float32]]] = {}
    exact = True
    for name, record in diff.items():
        delta = source.delta(name)
        positions = np.arange(record.info.words, dtype=np.int64) if delta.positions is None else delta.positions
        kept = delta.values != 0
        values = delta.values[kept].astype(np.float32)
        changes[name] = record.info, positions[kept], values
        exact = exact and (job.base is not None or bool(kept.all())) and _adds_up(job, name, positions[kept], values)
    rank, called = _rank(job, changes), job.options.get("prefix", "")
    tensors = {}
    for name, (info, positions, values) in changes.items():
        module = PREFIX + called + name.removesuffix(_WEIGHT)
        rows, columns = info.shape
        places, filled = _filled(positions, values, rank * (rows + columns), info.words)
        indices = np.stack(np.divmod(places, columns)).astype("<i4")
        tensors[module + _INDICES] = TensorInfo(DTYPES["I32"], (2, places.size)), indices.reshape(-1).view("<u4")
        tensors[module + _VALUES] = TensorInfo(DTYPES["F32"], (places.size,)), filled.view("<u4")
    write_adapter(job, tensors, _config(job, [called + name for name in changes], rank))
    note_left_out(job)
    job.notes.append(_LINEAR)
    if not exact:
        job.notes.append("base + value, in float32, is not the diff's result bit for bit: the adapter is lossy")
    return exact


def _refuse(job: Export) -> None:
    """Raise `UsageError` if the diff does more than change 2-D float weights of layers that PEFT's SHiRA adapts."""
    diff, manifest = job.diff, job.diff.manifest
    infos = {name: record.info for name, record in diff.items()} if job.base is None else job.base.tensors
    reasons = ["tensors are renamed"] if manifest.rename else []
    reasons += [f"{printable(name)} is removed" for name in manifest.removed]
    reasons += [f"{printable(name)} is tied" for name in manifest.aliases]
    for name, record in diff.items():
        matrix = len(record.shape) == 2 and name.endswith(_WEIGHT) and record.info.dtype.arithmetic
        if record.kind != "changed" or not matrix or max(record.shape) >= _MOST_ROWS:
            reasons.append(f"{printable(name)} ({record.kind}, {record.info}) is no float matrix that changes")
        elif is_embedding(name):
            reasons.append(f"{printable(name)} is an embedding")
        elif stored_turned(name.removesuffix(_WEIGHT), infos):
            reasons.append(f"{printable(name)} is of transformers' Conv1D")
    if reasons or not len(diff):
        what = listed(reasons) or "it changes nothing"
        raise UsageError(
            f"{diff.name}: a SHiRA adapter adds to the weights of linear layers, and PEFT loads no other, but {what} "
            "(sparse-safetensors holds any change)"
        )


def _adds_up(job: Export, name: str, positions: Positions, values: npt.NDArray[np.float32]) -> bool:
    """Tell whether adding the values to the base gives the diff's result: float32 tensors, where PEFT adds as we do."""
    record = job.diff[name]
    if record.dtype != "F32":
        return False
    if job.base is None:
        return not record.exact
    before = job.base.words(name)
    after = np.array(before)
    after[positions] = floats.add(before[positions], values, record.info.dtype)
    blocks = Result(job.diff, job.base).blocks(name)
    return all(np.array_equal(after[start : start + words.size], words) for start, words in blocks)


def _rank(job: Export, changes: Mapping[str, tuple[TensorInfo, Positions, npt.NDArray[np.float32]]]) -> int:
    """The smallest r with which every layer has room for its changes. Raises `UsageError` if there is none."""
    rank = max(1, *(-(-positions.size // max(sum(info.shape), 1)) for info, positions, _ in changes.values()))
    for name, (info, _, _) in changes.items():
        if rank * sum(info.shape) > info.words:
            raise UsageError(
                f"{job.diff.name}: SHiRA holds r x (rows + columns) entries in every layer; the r of {rank} that the "
                f"densest needs is more than {printable(name)} ({info}) has"
            )
    return rank


def _filled(
    positions: Positions, values: npt.NDArray[np.float32], count: int, words: int
) -> tuple[Positions, npt.NDArray[np.float32]]:
    """Add positions that do not change, with zeros, up to `count` of them: the first free ones."""
    missing = count - positions.size
    free = np.setdiff1d(np.arange(min(words, count), dtype=np.int64), positions, assume_unique=True)[:missing]
    places = np.concatenate([positions, free])
    filled = np.concatenate([values, np.zeros(free.size, np.float32)])
    order = np.argsort(places)
    return places[order], filled[order]


def _config(job: Export, names: list[str], rank: int) -> dict[str, object]:
    return {
        "base_model_name_or_path": job.diff.manifest.base.name,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_weights": True,
        "mask_type": "random",
        "modules_to_save": None,
        "peft_type": _KIND,
        "r": rank,
        "random_seed": None,
        "revision": job.diff.manifest.base.revision,
        "target_modules": [name.removesuffix(_WEIGHT) for name in names],
        "task_type": None,
    }


def _detect(path: Path) -> bool:
    return is_adapter(path, _KIND)


BRIDGE = Bridge(_detect, _read, _write, write_options=CALLED)

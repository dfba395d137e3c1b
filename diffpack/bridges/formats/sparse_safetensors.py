"""Sparse safetensors: flat indices of changed entries and their new values, as RL trainers ship weight updates.

Two spellings are in use: `<name>.indices` and `<name>.values` (PULSE's grail, prime-rl, TRL pull request 5417), and
`<name>.idx` and `<name>.val` (TRL pull request 5937), whose metadata member `encoding` says whether the indices are
positions (`raw`) or gaps (`gap_delta`: first differences minus one). Values are the new ones, not differences; a tensor
under its plain name is replaced whole. Nothing says what the update is relative to. Facts from the tools' public
code; no release of them writes the files, so the tests' files are written by the safetensors package in this layout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.bridges.bridge import Bridge, Export, Import
from diffpack.bridges.exporting import PARTIAL, beyond_entries, changed_tensors, entries_of, finished
from diffpack.bridges.importing import (
    BaseTensor,
    Make,
    Whole,
    needed,
    overwritten,
    refuse_missing,
    sorted_positions,
    write_patch,
)
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.checkpoints.safetensors_header import make_header
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint
from diffpack.checkpoints.safetensors_writer import SafetensorsWriter
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.support.names import printable
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo

_SPELLINGS = ((".indices", ".values"), (".idx", ".val"))
_INDICES = ("I32", "I64", "U16", "U32", "U64")
_INT32_WORDS = 1 << 31  # from here on an index needs 64 bits
_PATCH = {"format": "sparse_weight_patch", "version": "1"}
_COUNT = "num_changed_params"  # grail's member; an update that changes nothing says so by it
_BASE, _RESULT = "diffpack_base", "diffpack_result"  # our own members: fingerprints


def _detect(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() != ".safetensors":
        return False
    source = SafetensorsCheckpoint(path)
    names = source.tensors
    return source.header.metadata.get("format") == _PATCH["format"] or any(
        name.removesuffix(index) + value in names
        for index, value in _SPELLINGS
        for name in names
        if name.endswith(index)
    )


def _read(job: Import, file: BinaryIO) -> None:
    source = SafetensorsCheckpoint(job.source)
    changes = _changes(source)
    refuse_missing(job, changes)
    base = job.needed_base
    metadata = source.header.metadata
    if (expected := metadata.get(_BASE)) and expected != fingerprint(base, threads=job.threads):
        raise WrongBaseError(f"{base.source}: not the base of {job.source} (fingerprint expected {expected})")
    if checksum := metadata.get("checksum_sha256"):
        _check_sha256(job, changes, checksum)
    write_patch(job, file, changes, {}, metadata.get(_RESULT), says_nothing=metadata.get(_COUNT) == "0")


def _changes(source: SafetensorsCheckpoint) -> dict[str, Make]:
    changes: dict[str, Make] = {}
    names = set(source.tensors)
    for index, value in _SPELLINGS:
        encoding = source.header.metadata.get("encoding", "raw") if index == ".idx" else "raw"
        for key in sorted(names):
            name = key.removesuffix(index)
            if not key.endswith(index) or name + value not in names:
                continue
            names -= {key, name + value}
            if name in changes:
                raise CorruptFileError(f"{source.source}: {printable(name)} stands there twice")
            changes[name] = partial(_sparse, source, name, key, name + value, encoding)
    for name in sorted(names):
        if name in changes or name.endswith((".indices", ".values", ".idx", ".val")):
            raise CorruptFileError(f"{source.source}: {printable(name)} stands there without its other half")
        changes[name] = partial(_dense, source, name)
    return changes


def _sparse(
    source: SafetensorsCheckpoint, name: str, index: str, value: str, encoding: str, base: BaseTensor | None
) -> Whole:
    where = f"{source.source}: {printable(name)}"
    info, before = needed(base, where)
    stored = source.info(value)
    if stored.dtype != info.dtype:
        raise WrongBaseError(f"{where}: values of {stored.dtype.name}, but the base's tensor is {info}", (name,))
    if info.dtype.bits != info.dtype.word_bits:
        raise UsageError(f"{where}: indices of {info.dtype.name} entries, which are no whole words")
    numbers = _indices(source, index, where)
    values = source.words(value)
    if values.size != numbers.size:
        raise CorruptFileError(f"{where}: {numbers.size} indices and {values.size} values")
    positions, order = sorted_positions(_positions(numbers, encoding, info.words, where), info.words, where)
    return overwritten((info, before), positions, values if order is None else values[order])


def _indices(source: SafetensorsCheckpoint, name: str, where: str) -> npt.NDArray[Any]:
    info = source.info(name)
    if info.dtype.name not in _INDICES:
        raise CorruptFileError(f"{where}: indices of {info.dtype.name}, which is not one of {', '.join(_INDICES)}")
    kind = "u" if info.dtype.name.startswith("U") else "i"
    return source.words(name).view(f"<{kind}{info.dtype.word.itemsize}")


def _positions(numbers: npt.NDArray[Any], encoding: str, count: int, where: str) -> npt.NDArray[Any]:
    if encoding == "raw":
        return numbers
    if encoding != "gap_delta":
        raise UsageError(f"{where}: its indices are coded as {printable(encoding)}; known are raw and gap_delta")
    if numbers.size > count or (numbers.size and (int(numbers.max()) >= count or int(numbers.min()) < 0)):
        raise CorruptFileError(f"{where}: a gap leads outside its {count} entries")  # so that no sum overflows
    return np.cumsum(numbers.astype(np.int64) + 1) - 1


def _dense(source: SafetensorsCheckpoint, name: str, base: BaseTensor | None) -> Whole:
    info, words = source.info(name), source.words(name)
    expected, _ = needed(base, f"{source.source}: {printable(name)}")
    if info != expected:
        raise WrongBaseError(f"{source.source}: {printable(name)} is {info}, the base's {expected}", (name,))
    return Whole(info, words)


def _check_sha256(job: Import, changes: Mapping[str, Make], expected: str) -> None:
    """Check grail's checksum: SHA-256 of all result tensors' bytes, sorted by name."""
    base, hasher = job.needed_base, hashlib.sha256()
    for name, own in sorted(job.view().items()):
        words = base.words(own)
        if name in changes:
            change = changes[name]((base.info(own), words))
            assert isinstance(change, Whole)
            words = change.words
        hasher.update(words.view("u1").data)
    if hasher.hexdigest() != expected:
        raise WrongBaseError(
            f"{base.source}: does not lead to the checksum {expected[:16]}... of {job.source}: another base, or damaged"
        )


def _write(job: Export) -> bool:
    spelling = {"indices": _SPELLINGS[0], "idx": _SPELLINGS[1]}.get(job.options.get("names", "indices"))
    if spelling is None:
        raise UsageError("names is indices or idx")
    plan: dict[str, tuple[TensorInfo, Words]] = {}
    total = 0
    for tensor in changed_tensors(job):
        if tensor.info.dtype.bits != tensor.info.dtype.word_bits:
            raise UsageError(f"{job.diff.name}: {printable(tensor.name)}: {tensor.info.dtype.name} has no flat indices")
        positions = tensor.positions
        wide = tensor.info.words > _INT32_WORDS
        index = DTYPES["I64" if wide else "I32"]
        count = (positions.size,)
        plan[tensor.name + spelling[0]] = TensorInfo(index, count), positions.astype(index.step).view(index.word)
        plan[tensor.name + spelling[1]] = TensorInfo(tensor.info.dtype, count), tensor.after[positions]
        total += positions.size
    header = make_header({name: info for name, (info, _) in plan.items()}, _metadata(job, plan, total, spelling[1]))
    with SafetensorsWriter([(job.output, header)], replace=job.replace) as writer, job.inputs.unchanged():
        for name, (_, words) in plan.items():
            writer.write(name, 0, words)
    return finished(job)


def _metadata(job: Export, plan: Mapping[str, Any], total: int, value: str) -> dict[str, str]:
    base, diff = job.needed_base, job.diff
    names = [key.removesuffix(value) for key in plan if key.endswith(value)]
    entries = sum(entries_of(info) for info in base.tensors.values())
    members = {
        **_PATCH,
        "sparse": "True",
        "encoding": "raw",
        _COUNT: str(len(names)),
        "total_changed_elements": str(total),
        "total_elements": str(entries),
        "sparsity": str(1.0 - total / max(entries, 1)),
        "changed_params": json.dumps(names),
        _BASE: diff.manifest.base.fingerprint,
    }
    if diff.manifest.result.fingerprint and not beyond_entries(job):
        members[_RESULT] = diff.manifest.result.fingerprint
    return members


BRIDGE = Bridge(
    _detect,
    _read,
    _write,
    write_options={"names": "indices (<name>.indices, <name>.values) or idx (<name>.idx, <name>.val)", **PARTIAL},
)

"""HDF5: one file with the diffs of many tasks, which any HDF5 tool can browse, and which gives each back whole.

    /                         attributes: format "diffpack diffs", version 1
    /tasks/<task>             attributes: exact, base, result (fingerprints), changed (tensors)
    /tasks/<task>/statement   all that the diff says but its numbers, as JSON (u8)
    /tasks/<task>/layout      the layout of the tuned files, where the diff stores it (u8)
    /tasks/<task>/files/<n>   side files the diff stores, in the order of the statement (u8)
    /tasks/<task>/tensors/<tensor>     attribute: base_name, where the base calls it otherwise
        positions             sorted flat positions, i64; not there where every word has a number
        values                steps (signed integers, as wide as a word), or floats to add; int8 counts in `scale`

Tensor and task names are percent-encoded where HDF5 could not hold them. Datasets are chunked, shuffled and deflated.
`grid` values become the float32 numbers they stand for, and changes coded against the base plain ones (with the base).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from diffpack.algebra.checks import check_base
from diffpack.algebra.shared_names import names_in_base
from diffpack.bridges.bridge import Bridge, Export, Import
from diffpack.bridges.formats.link_names import encoded
from diffpack.bridges.formats.statement import (
    MOST_BYTES,
    RecordStatement,
    Stored,
    blobs,
    describe,
    from_bytes,
    stored,
    to_bytes,
    write_statement,
)
from diffpack.bridges.importing import sorted_positions
from diffpack.checkpoints.claims import CLAIMED
from diffpack.checkpoints.hdf5_contents import LIBRARY, explained, import_h5py
from diffpack.checkpoints.hdf5_readback import WrittenDataset, check_written
from diffpack.diff.diff import Diff
from diffpack.diff.record import TensorDiff
from diffpack.errors import CorruptFileError, UsageError
from diffpack.format import limits
from diffpack.format.values.floats import F16, Floats
from diffpack.result.result import Result
from diffpack.support.aside import aside
from diffpack.support.atomic import atomic_file
from diffpack.support.names import listed, printable
from diffpack.support.steady_file import SteadyFile

_FORMAT, _VERSION = "diffpack diffs", 1
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LEVEL = 4  # deflate: higher levels take much longer for little
_MOST_RATIO = 1040  # deflate makes data at most 1032 times smaller; a dataset that claims more is a bomb
_SLACK = 1 << 16  # bytes; what small datasets may claim over that
_STEPS = "steps"


def _detect(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() not in (".h5", ".hdf5"):
        return False
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return False
    h5py = import_h5py("reading HDF5 files")
    with LIBRARY, explained(str(path)), h5py.File(path, "r") as file:
        return _is_ours(file)


def _is_ours(file: Any) -> bool:
    mark = file.attrs.get("format")
    return (mark.decode() if isinstance(mark, bytes) else mark) == _FORMAT


def _read(job: Import, file: BinaryIO) -> None:
    where = str(job.source)
    with LIBRARY, _opened(job.source) as opened:
        task = _choose(_group(opened, "tasks", where), job.options.get("task"), where)
        nbytes = job.source.stat().st_size
        most = min(MOST_BYTES, limits.MANIFEST_DECODED.most(nbytes))
        statement = from_bytes(_bytes(task, "statement", where, most), where)
        tensors = _group(task, "tensors", where)

        def numbers(record: RecordStatement) -> Stored:
            return _numbers(_group(tensors, record.place, where), record, f"{where}: {printable(record.name)}")

        def blob(at: int | None) -> bytes:
            most = min(limits.STREAM_DECODED_BYTES, limits.NUMBERS.most(nbytes))
            if at is None:
                return _bytes(task, "layout", where, most)
            return _bytes(_group(task, "files", where), str(at), where, most)

        write_statement(job, file, statement, numbers, blob)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    where = str(path)
    h5py = import_h5py("reading HDF5 files")
    with explained(where):
        file = h5py.File(path, "r")
    with file:
        with explained(where):
            ours, version = _is_ours(file), file.attrs.get("version")
        if not ours:
            raise CorruptFileError(f"{where}: not a file of diffs (a checkpoint is read by the other verbs)")
        if version != _VERSION:
            raise CorruptFileError(f"{where}: version {version}; this diffpack reads {_VERSION}")
        yield file


def _choose(tasks: Any, wanted: str | None, where: str) -> Any:
    with explained(where):
        names = list(tasks)
    if wanted is None and len(names) == 1:
        return _group(tasks, names[0], where)
    known = listed([printable(name) for name in names])
    if wanted is None:
        raise UsageError(f"{where}: holds {len(names)} tasks ({known}): choose one with the option task")
    if encoded(wanted) not in names:
        raise UsageError(f"{where}: has no task {wanted!r}; it has {known}")
    return _group(tasks, encoded(wanted), where)


def _group(parent: Any, name: str, where: str) -> Any:
    """A member group that lies in this file. Raises `CorruptFileError`."""
    h5py = import_h5py()
    with explained(where):
        if name not in parent or not isinstance(parent.get(name, getlink=True), h5py.HardLink):
            raise CorruptFileError(f"{where}: no group {printable(name)}")
        member = parent[name]
        if not isinstance(member, h5py.Group):
            raise CorruptFileError(f"{where}: {printable(name)} is no group")
    return member


def _dataset(group: Any, name: str, where: str, most: int, kinds: str) -> npt.NDArray[Any]:
    """Read a dataset of at most `most` numbers, that takes no more memory than its bytes in the file can say."""
    h5py = import_h5py()
    with explained(where):
        if name not in group or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise CorruptFileError(f"{where}: no dataset {name}")
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external or dataset.shape is None:
            raise CorruptFileError(f"{where}: {name} is no dataset of this file")
        size, width = int(dataset.size), dataset.dtype.itemsize
        whole = CLAIMED.most(dataset.file.id.get_filesize())
        claimed = min(dataset.id.get_storage_size() * _MOST_RATIO + _SLACK, whole)
        if dataset.dtype.kind not in kinds or size > most or size * width > claimed:
            raise CorruptFileError(
                f"{where}: {name}: {size} numbers of {dataset.dtype}, where {most} of '{kinds}' may be"
            )
        array: npt.NDArray[Any] = np.asarray(dataset[()])
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1)


def _bytes(group: Any, name: str, where: str, most: int) -> bytes:
    array = _dataset(group, name, where, most, "u")
    if array.dtype.itemsize != 1:
        raise CorruptFileError(f"{where}: {name} is not of bytes")
    return array.tobytes()


def _numbers(group: Any, record: RecordStatement, where: str) -> Stored:
    info = record.info
    coding = record.value_coding
    values = _dataset(group, "values", where, info.words, "f" if isinstance(coding, Floats) else "i")
    expected = _float_type(coding) if isinstance(coding, Floats) else coding.stream(info.dtype)
    if values.dtype != expected:
        raise CorruptFileError(f"{where}: values of {values.dtype}, where {expected} are expected")
    numbers = coding.numbers(values.astype(np.float32)) if isinstance(coding, Floats) else values
    with explained(where):
        sparse = "positions" in group
    if not sparse:
        return None, numbers
    places = _dataset(group, "positions", where, info.words, "iu")
    if places.size != numbers.size:
        raise CorruptFileError(f"{where}: {places.size} positions and {numbers.size} values")
    positions, order = sorted_positions(places, info.words, where)
    return positions, numbers if order is None else numbers[order]


def _float_type(coding: Floats) -> np.dtype[Any]:
    """The HDF5 float a coding is kept in: bfloat16 as float32, which holds it exactly."""
    return np.dtype("<f2" if coding is F16 else "<f4")


def _write(job: Export) -> bool:
    if job.base is not None:
        for diff in job.diffs:
            check_base(diff, job.base, job.threads)
    names = [encoded(name) for name in job.names]
    if len(set(names)) < len(names):
        raise UsageError(f"{job.output}: two diffs of one name: {listed(sorted(names))} (the note `task` names one)")
    where = str(job.output)
    with (
        explained(where, "cannot be written as HDF5"), atomic_file(job.output, replace=job.replace) as part,
        job.inputs.unchanged(),
    ):  # fmt: skip
        steady = SteadyFile(part)
        written = aside(lambda: _write_file(steady, names, job), stop=steady.fail)
        check_written(Path(part.name), where, written)
    return True


@dataclass(frozen=True)
class _Output:
    """A file being written, and the datasets written so far."""

    file: SteadyFile
    written: dict[str, WrittenDataset]


def _write_file(file: SteadyFile, names: Sequence[str], job: Export) -> dict[str, WrittenDataset]:
    """Write all tasks; give what was written, by the paths of the datasets."""
    output = _Output(file, {})
    with LIBRARY:
        with import_h5py("writing HDF5 files").File(file, "w", track_order=True) as root:
            root.attrs["format"], root.attrs["version"] = np.bytes_(_FORMAT.encode()), _VERSION
            tasks = root.create_group("tasks", track_order=True)
            for name, diff, own in zip(names, job.diffs, _names_in_base(job), strict=True):
                _write_task(tasks.create_group(name, track_order=True), diff, own, job, output)
        file.check()
    return output.written


def _names_in_base(job: Export) -> list[dict[str, str]]:
    """What the base calls the tensors of each task: by these names tasks meet that rename its tensors differently."""
    if len({diff.manifest.base.fingerprint for diff in job.diffs}) == 1:
        return names_in_base(job.diffs, job.base)
    return [names_in_base([diff], None)[0] for diff in job.diffs]


def _write_task(task: Any, diff: Diff, own: Mapping[str, str], job: Export, output: _Output) -> None:
    manifest = diff.manifest
    places = {name: encoded(name, at) for at, name in enumerate(diff)}
    task.attrs["exact"] = diff.exact
    task.attrs["base"] = np.bytes_(manifest.base.fingerprint.encode())
    task.attrs["result"] = np.bytes_((manifest.result.fingerprint or "unknown").encode())
    task.attrs["changed"] = len(diff)
    statement = describe(diff, places)
    _create(task, "statement", np.frombuffer(to_bytes(statement), np.uint8), output)
    kept = blobs(diff)
    if "" in kept:
        _create(task, "layout", np.frombuffer(kept.pop(""), np.uint8), output)
    files = task.create_group("files", track_order=True)
    for at, content in enumerate(kept.values()):  # in the order of the statement
        _create(files, str(at), np.frombuffer(content, np.uint8), output)
    records = diff if job.base is None else Result(diff, job.base).records
    tensors = task.create_group("tensors", track_order=True)
    for said in statement.records:
        group = tensors.create_group(said.place)
        _write_tensor(group, records[said.name], said, output)
        if own.get(said.name, said.name) != said.name:
            group.attrs["base_name"] = np.bytes_(own[said.name].encode())
    regraded = [record for record in diff.values() if record.value_coding.class_offsets]
    if regraded:
        what = "factors and grid values" if any(record.rank for record in regraded) else "grid values"
        job.notes.append(f"{diff.name}: {what} are kept as the float32 numbers they stand for")


def _write_tensor(group: Any, record: TensorDiff, kept: RecordStatement, output: _Output) -> None:
    positions, numbers = stored(record)
    group.attrs["kind"] = np.bytes_(record.kind.encode())
    group.attrs["dtype"] = np.bytes_(record.dtype.encode())
    group.attrs["shape"] = np.array(record.shape, np.int64)
    group.attrs["values"] = np.bytes_((_STEPS if record.exact else kept.value_coding_id).encode())
    coding = kept.value_coding
    if coding.scaled:
        group.attrs["scale"] = record.scale
    if isinstance(coding, Floats):
        numbers = coding.differences(numbers).astype(_float_type(coding))
    if positions is None:
        whole = record.info.dtype.bits == record.info.dtype.word_bits
        _create(group, "values", numbers.reshape(record.shape) if whole else numbers, output)
    else:
        _create(group, "positions", positions, output)
        _create(group, "values", numbers, output)


def _create(group: Any, name: str, array: npt.NDArray[Any], output: _Output) -> None:
    packed: dict[str, Any] = (
        {"chunks": True, "shuffle": True, "compression": _LEVEL} if array.size and array.ndim else {}
    )
    dataset = group.create_dataset(name, data=array, track_times=False, **packed)
    output.written[dataset.name] = WrittenDataset.of(array)
    output.file.check()


BRIDGE = Bridge(
    _detect,
    _read,
    _write,
    read_options={"task": "the task to read, where the file holds several"},
)

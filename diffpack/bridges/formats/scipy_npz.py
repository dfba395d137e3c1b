"""scipy.sparse: a folder of `.npz` files as `scipy.sparse.save_npz` writes them, one a tensor, and an index of ours.

Written, each file is a COO matrix of the tensor's 2-D shape ((1, n) up to one dimension, else (first dimension, the
rest), in words): steps of exact diffs, float32 differences of lossy ones. `diffpack.json` says the rest, so the diff
comes back whole, without the base; the layout of the tuned files and side files lie beside it as `layout.bin`
and `file.<n>.bin`.

Read, a folder without that index, or one file, is taken as float differences to add, under the names of the files
(percent-encoded); COO, CSR and CSC matrices are known. npz members are read as plain arrays, never as pickles.
"""

from __future__ import annotations

import io
import zipfile
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from diffpack.algebra.checks import check_base
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
from diffpack.bridges.importing import Added, BaseTensor, Make, needed, refuse_missing, sorted_positions, write_patch
from diffpack.diff.diff import Diff
from diffpack.errors import CheckpointError, CorruptFileError, DiffpackError, UsageError, WrongBaseError
from diffpack.format.file_names import is_plain_file_name
from diffpack.format.limits import STREAM_DECODED_BYTES
from diffpack.format.values.floats import F32
from diffpack.result.result import Result
from diffpack.support.names import listed, printable
from diffpack.tensors.dtypes import Positions
from diffpack.tensors.info import TensorInfo

INDEX = "diffpack.json"
_ENDING = ".npz"
_HEADER = 1 << 16  # bytes an array may take beside its numbers
_SMALL = 1 << 10  # bytes of `format` and `shape`
_FORMATS = {"coo": ("row", "col"), "csr": ("indices", "indptr"), "csc": ("indices", "indptr")}


def _detect(path: Path) -> bool:
    if path.is_dir():
        return (path / INDEX).is_file()
    if path.suffix.lower() != _ENDING or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"format.npy", "shape.npy", "data.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _read(job: Import, file: BinaryIO) -> None:
    source = job.source
    if source.is_dir() and (source / INDEX).is_file():
        _read_whole(job, file)
        return
    files = sorted(source.glob(f"*{_ENDING}")) if source.is_dir() else [source]
    if not files:
        raise CheckpointError(f"{source}: no {_ENDING} files")
    others = sorted(item.name for item in source.iterdir() if item not in files) if source.is_dir() else []
    if others:
        job.notes.append(f"not read, since its ending is not {_ENDING}: {listed([printable(name) for name in others])}")
    changes: dict[str, Make] = {}
    for path in files:
        name = unquote(path.name[: -len(_ENDING)], errors="strict")
        if name in changes:
            raise CorruptFileError(f"{path}: a second file of the tensor {printable(name)}")
        changes[name] = partial(_added, path)
    refuse_missing(job, changes)
    write_patch(job, file, changes, {})


def _read_whole(job: Import, file: BinaryIO) -> None:
    index = job.source / INDEX
    if index.stat().st_size > MOST_BYTES:
        raise CorruptFileError(f"{index}: over the limit of {MOST_BYTES} bytes")
    statement = from_bytes(index.read_bytes(), str(index))

    def numbers(record: RecordStatement) -> Stored:
        if not is_plain_file_name(record.place):
            raise CorruptFileError(f"{index}: {printable(record.place)} is no plain file name")
        path = job.source / record.place
        kind = record.info.dtype.step if record.value_coding.exact else np.dtype("<f4")
        positions, values = _matrix(path, two_dimensional(record.info), record.info.words)
        if values.dtype != kind:
            raise CorruptFileError(f"{path}: numbers of {values.dtype}, where {kind} are expected")
        if not record.value_coding.exact and record.value_coding is not F32:
            raise CorruptFileError(f"{path}: {record.value_coding_id} values, which are not written here")
        return positions, values if record.value_coding.exact else F32.numbers(values)

    def blob(at: int | None) -> bytes:
        path = job.source / _blob_name(at)
        if not path.is_file() or path.stat().st_size > STREAM_DECODED_BYTES:
            raise CorruptFileError(f"{path}: missing, or too large")
        return path.read_bytes()

    write_statement(job, file, statement, numbers, blob)


def _blob_name(at: int | None) -> str:
    return "layout.bin" if at is None else f"file.{at}.bin"


def two_dimensional(info: TensorInfo) -> tuple[int, int]:
    """The shape of a tensor's matrix, in words; one row where those are no whole rows (dtypes below a byte)."""
    rows = info.shape[0] if len(info.shape) > 1 else 1
    if rows and info.words % rows:
        return 1, info.words
    return rows, info.words // rows if rows else 0


def _added(path: Path, base: BaseTensor | None) -> Added:
    info, _ = needed(base, str(path))
    positions, values = _matrix(path, two_dimensional(info), info.words)
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        raise UsageError(f"{path}: matrices of {values.dtype} are not differences to add; only floats are")
    return Added(positions, values)


def _matrix(path: Path, shape: tuple[int, int], words: int) -> tuple[Positions, npt.NDArray[Any]]:
    """Read a sparse matrix of a known shape: sorted flat positions and their numbers.

    No member is larger than a matrix of that shape can be. Raises `CorruptFileError`, `WrongBaseError`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise CorruptFileError(f"{path}: two arrays of one name")
            kind = _array(archive, "format", _SMALL, path)
            name = kind.item().decode("ascii") if kind.dtype.kind == "S" and kind.size == 1 else str(kind)
            if name not in _FORMATS:
                raise UsageError(f"{path}: a matrix in the form {printable(name)!r}; known are {', '.join(_FORMATS)}")
            stored_shape = tuple(int(size) for size in _array(archive, "shape", _SMALL, path).reshape(-1))
            if stored_shape != shape:
                raise WrongBaseError(f"{path}: a matrix of {stored_shape}, where {shape} is expected")
            data = _array(archive, "data", 16 * words, path).reshape(-1)
            rows, columns = _places(archive, name, shape, words, data.size, path)
    except DiffpackError:
        raise
    except Exception as error:  # what damaged zip files and headers raise is anyone's guess
        raise CorruptFileError(f"{path}: not what scipy.sparse.save_npz writes: {error}") from None
    for places, limit in ((rows, shape[0]), (columns, shape[1])):
        if places.size != data.size or (places.size and not 0 <= int(places.min()) <= int(places.max()) < limit):
            raise CorruptFileError(f"{path}: an index outside {shape}")
    positions, order = sorted_positions(rows * shape[1] + columns, words, str(path))
    return positions, data if order is None else data[order]


def _places(
    archive: zipfile.ZipFile, kind: str, shape: tuple[int, int], words: int, count: int, path: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The row and the column of each number."""
    first, second = (_integers(archive, name, max(words, max(shape) + 1), path) for name in _FORMATS[kind])
    if kind == "coo":
        return first, second
    lines = shape[0] if kind == "csr" else shape[1]
    ends = second
    proper = ends.size == lines + 1 and int(ends[0]) == 0 and int(ends[-1]) == count == first.size
    if not proper or (np.diff(ends) < 0).any():
        raise CorruptFileError(f"{path}: its indptr does not fit")
    of_line = np.repeat(np.arange(lines, dtype=np.int64), np.diff(ends))
    return (of_line, first) if kind == "csr" else (first, of_line)


def _integers(archive: zipfile.ZipFile, name: str, most: int, path: Path) -> npt.NDArray[np.int64]:
    numbers = _array(archive, name, 8 * most, path)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or (numbers.size and int(numbers.max()) >= 1 << 62):
        raise CorruptFileError(f"{path}: {name} is no list of integers")
    return numbers.astype(np.int64, copy=False)


def _array(archive: zipfile.ZipFile, name: str, most: int, path: Path) -> npt.NDArray[Any]:
    """Read one array of at most `most` bytes. Raises `CorruptFileError`."""
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise CorruptFileError(f"{path}: no array {name}") from None
    if member.file_size > most + _HEADER:
        raise CorruptFileError(f"{path}: {name} claims {member.file_size} bytes, where {most} may be")
    raw = archive.read(member)  # reads no more than the size that was compared
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(stream)
    body = raw[stream.tell() :]
    if dtype.hasobject or dtype.kind not in "iufSU" or (fortran and len(shape) > 1):
        raise CorruptFileError(f"{path}: {name} is of {dtype}, not plain numbers")
    if len(body) != prod(shape) * dtype.itemsize:
        raise CorruptFileError(f"{path}: {name} is cut off")
    array = np.frombuffer(body, dtype).reshape(shape) if body else np.empty(shape, dtype)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _write(job: Export) -> bool:
    diff = job.diff
    if job.base is not None:
        check_base(diff, job.base, job.threads)
    records = diff if job.base is None else Result(diff, job.base).records
    places = _file_names(diff)
    statement = describe(diff, places, plain_floats=True)
    with job.folder() as folder:
        for said in statement.records:
            positions, numbers = stored(records[said.name], plain_floats=True)
            if positions is None:
                positions = np.flatnonzero(numbers) if said.value_coding.exact else np.arange(numbers.size)
                numbers = numbers[positions]
            values = numbers if said.value_coding.exact else F32.differences(numbers)
            _save(folder / said.place, two_dimensional(said.info), positions, values)
        kept = blobs(diff)
        if "" in kept:
            (folder / _blob_name(None)).write_bytes(kept.pop(""))
        for at, content in enumerate(kept.values()):
            (folder / _blob_name(at)).write_bytes(content)
        (folder / INDEX).write_bytes(to_bytes(statement) + b"\n")
    if any(not record.exact and record.value_coding is not F32 for record in diff.values()):
        job.notes.append(f"{diff.name}: lossy values are kept as the float32 numbers they stand for")
    return True


def _file_names(diff: Diff) -> dict[str, str]:
    """Give each tensor a file name that every system has, and that no other gets where case is ignored."""
    file_names: dict[str, str] = {}
    taken: set[str] = set()
    for at, name in enumerate(diff):
        place = encoded(name, at)
        if place.casefold() in taken or not is_plain_file_name(place + _ENDING):
            place = f"%n{at}"
        taken.add(place.casefold())
        file_names[name] = place + _ENDING
    return file_names


def _save(path: Path, shape: tuple[int, int], positions: Positions, values: npt.NDArray[Any]) -> None:
    """Write a COO matrix with the members that `scipy.sparse.save_npz` writes."""
    index = np.dtype("<i4" if max(shape) <= np.iinfo(np.int32).max else "<i8")
    width = max(shape[1], 1)
    rows, columns = (positions // width).astype(index), (positions % width).astype(index)
    arrays: dict[str, Any] = {
        "row": rows, "col": columns, "format": np.array(b"coo"),
        "shape": np.array(shape, np.int64), "data": values,
    }  # fmt: skip
    np.savez_compressed(path, **arrays)


BRIDGE = Bridge(_detect, _read, _write)

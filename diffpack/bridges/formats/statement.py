"""All that a diff says but its numbers, as JSON: beside the numbers it is what a diff is made of again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec
import numpy as np
from msgspec.structs import replace

from diffpack.bridges.bridge import Import
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff
from diffpack.diff.entries import Entry, write_entries
from diffpack.diff.group_decoder import Changes
from diffpack.diff.layout import stored_blob
from diffpack.diff.record import TensorDiff
from diffpack.diff.sidefiles import side_content
from diffpack.errors import CorruptFileError, UsageError, WrongBaseError
from diffpack.format import limits
from diffpack.format.features import FEATURES, LOWRANK, UNSEALED
from diffpack.format.manifest import Manifest, to_canonical, to_json
from diffpack.format.manifest_rules import parse
from diffpack.format.positions import POSITION_CODINGS
from diffpack.format.positions.gaps import GAPS
from diffpack.format.source import FileSource
from diffpack.format.streams import CODECS, Numbers
from diffpack.format.values import VALUE_CODINGS, ValueCoding
from diffpack.format.values.floats import F32
from diffpack.format.writer import ContainerWriter
from diffpack.result.verify import check_chunks
from diffpack.support.names import printable
from diffpack.tensors.digests import DIGEST_BYTES
from diffpack.tensors.dtypes import DTYPES, Positions
from diffpack.tensors.info import TensorInfo

VERSION = 1
MOST_BYTES = limits.MANIFEST_BYTES
WHOLE_DENSITY = 1 / 2
"""From this density on every word's number is stored, and no positions."""
_CHOSEN_ANEW = frozenset({*POSITION_CODINGS, *VALUE_CODINGS, *CODECS, LOWRANK})
"""Features that are codings, or factors; all others are those of the diff as a whole."""
_HEX = set("0123456789abcdef")


class RecordStatement(msgspec.Struct, frozen=True):
    """What is said of one tensor beside its numbers; `place` is where those are, in the format's own terms."""

    name: str
    place: str
    dtype: str
    shape: tuple[int, ...]
    base_dtype: str | None
    base_shape: tuple[int, ...] | None
    value_coding_id: str = msgspec.field(name="values")
    scale: int = 0  # bits of the float32
    base_digest: str | None = None
    result_digest: str | None = None
    error: int | None = None

    @property
    def value_coding(self) -> ValueCoding:
        """How its numbers are kept."""
        return VALUE_CODINGS[self.value_coding_id]

    @property
    def info(self) -> TensorInfo:
        """Dtype and shape of the result tensor."""
        return TensorInfo(DTYPES[self.dtype], self.shape)

    @property
    def base(self) -> TensorInfo | None:
        """Dtype and shape of the base tensor; None for a new one."""
        if self.base_dtype is None or self.base_shape is None:
            return None
        return TensorInfo(DTYPES[self.base_dtype], self.base_shape)


class Statement(msgspec.Struct, frozen=True):
    """The whole of it; `manifest` is as in a diff file, without groups and chunks."""

    version: int
    manifest: dict[str, Any]
    records: tuple[RecordStatement, ...]


Stored = tuple[Positions | None, Numbers]
"""Sorted positions (None: every word) and their numbers, in the coding of the record's values."""


def describe(diff: Diff, places: Mapping[str, str], *, plain_floats: bool = False) -> Statement:
    """What a diff says. `plain_floats` turns all lossy codings into f32; `grid`, and what factors come to, always
    becomes that.
    """  # noqa: D205 - one sentence
    kept = tuple(feature for feature in diff.manifest.requires if feature not in _CHOSEN_ANEW)
    manifest = to_json(replace(diff.manifest, groups=(), requires=kept))
    errors = {
        name: error
        for group in diff.manifest.groups
        if group.errors is not None
        for name, error in zip(group.names, group.errors, strict=True)
    }
    records = tuple(
        _record(diff, record, places[name], errors.get(name), plain_floats) for name, record in diff.items()
    )
    return Statement(VERSION, manifest, records)


def _record(diff: Diff, record: TensorDiff, place: str, error: int | None, plain_floats: bool) -> RecordStatement:
    base, result = (digest and digest.hex() for digest in diff.digests(record.name))
    values = kept_coding(record.value_coding, plain_floats)
    return RecordStatement(
        record.name, place, record.dtype, record.shape,
        None if record.base is None else record.base.dtype.name,
        None if record.base is None else record.base.shape, values.id,
        int(np.float32(record.scale).view(np.uint32)) if values.scaled else 0, base or None, result or None, error,
    )  # fmt: skip


def kept_coding(coding: ValueCoding, plain_floats: bool) -> ValueCoding:
    """The value coding a record is stored in."""
    return F32 if coding.class_offsets or (plain_floats and not coding.exact) else coding


def stored(record: TensorDiff, plain_floats: bool = False) -> Stored:
    """A record's positions and numbers; those of an exact one without zeros, unless every word is stored.

    A zero that is added says something: it makes -0.0 a 0.0. Takes the memory of one record. Raises `BaseNeededError`
    if the record is coded against the base and that is not bound.
    """
    coding, positions = record.value_coding, record.position_coding
    if positions.every_word and not coding.exact:
        parts = [part.numbers for part in record.changes()]
        return None, _converted(np.concatenate([_no_numbers(record), *parts]), record, plain_floats)
    if positions is not GAPS and coding.exact:
        return _from_dense(record)
    places: list[Positions] = [np.empty(0, np.int64)]
    numbers: list[Numbers] = [_no_numbers(record)]
    for part in record.changes():
        if part.positions is None or coding.exact or coding.class_offsets:
            part = part.nonzero()
        assert part.positions is not None
        places.append(part.positions)
        numbers.append(part.numbers)
    return _thinned(np.concatenate(places), _converted(np.concatenate(numbers), record, plain_floats), record)


def _no_numbers(record: TensorDiff) -> Numbers:
    return np.empty(0, record.value_coding.stream(record.info.dtype))


def _converted(numbers: Numbers, record: TensorDiff, plain_floats: bool) -> Numbers:
    """Numbers in the coding that is kept."""
    old = record.value_coding
    return numbers if kept_coding(old, plain_floats) is old else F32.numbers(old.differences(numbers, record.scale))


def _thinned(positions: Positions, numbers: Numbers, record: TensorDiff) -> Stored:
    """Leave the positions out where exact changes are dense; a word without one is one with a zero step."""
    words = record.info.words
    if not record.exact or numbers.size < WHOLE_DENSITY * words or not words:
        return positions, numbers
    dense = np.zeros(words, numbers.dtype)
    dense[positions] = numbers
    return None, dense


def _from_dense(record: TensorDiff) -> Stored:
    """The steps of a record that is coded word by word, without positions on the way."""
    dense = np.zeros(record.info.words, record.info.dtype.step)
    for part in record.changes():
        index, numbers = part.within(part.start, part.stop)
        dense[part.start : part.stop][index] = numbers
    if np.count_nonzero(dense) >= WHOLE_DENSITY * dense.size and dense.size:
        return None, dense
    positions = np.flatnonzero(dense)
    return positions, dense[positions]


def to_bytes(statement: Statement) -> bytes:
    """Write a statement as canonical JSON."""
    value: dict[str, Any] = msgspec.to_builtins(statement)
    return to_canonical(value)


def from_bytes(raw: bytes, where: str) -> Statement:
    """Read and check a statement. Raises `CorruptFileError`."""
    try:
        statement = msgspec.json.decode(raw, type=Statement)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CorruptFileError(f"{where}: not what diffpack writes: {error}") from None
    if statement.version != VERSION:
        raise CorruptFileError(f"{where}: version {statement.version}; this diffpack reads {VERSION}")
    before = ""
    for record in statement.records:
        _check_record(record, f"{where}: {printable(record.name)}")
        if record.name <= before and before + record.name:
            raise CorruptFileError(f"{where}: its records are not sorted at {printable(record.name)}")
        before = record.name
    return statement


def _check_record(record: RecordStatement, where: str) -> None:
    dtypes = (record.dtype, record.base_dtype or record.dtype)
    values = VALUE_CODINGS.get(record.value_coding_id)
    if not set(dtypes) <= DTYPES.keys() or values is None or values.class_offsets:
        raise CorruptFileError(f"{where}: unknown dtype or coding of values")
    for shape in (record.shape, record.base_shape or ()):
        if len(shape) > limits.DIMENSIONS or min(shape, default=0) < 0 or record.info.words > limits.WORDS:
            raise CorruptFileError(f"{where}: an impossible shape")
    for digest in (record.base_digest, record.result_digest):
        if digest is not None and (len(digest) != 2 * DIGEST_BYTES or not set(digest) <= _HEX):
            raise CorruptFileError(f"{where}: a digest that is none")
    if not 0 <= record.scale < 1 << 32 or (record.base is None) != (record.base_digest is None):
        raise CorruptFileError(f"{where}: a scale or a digest that does not fit")


def write_statement(
    job: Import,
    file: BinaryIO,
    statement: Statement,
    numbers: Callable[[RecordStatement], Stored],
    blob: Callable[[int | None], bytes],
) -> None:
    """Write the diff of a statement; `numbers` gives those of a record, `blob` the layout (None) and stored side files.

    Everything written is checked as a diff from anywhere is. Raises `CorruptFileError`.
    """
    where = str(job.source)
    if job.rename:
        raise UsageError(f"{where}: a whole diff, which knows its names; rename says nothing to it")
    manifest: Manifest = parse({**statement.manifest, "groups": [], "requires": _requires(statement.manifest)}, where)
    expected = manifest.base.fingerprint
    if job.base is not None and (actual := fingerprint(job.base, threads=job.threads)) != expected:
        raise WrongBaseError(
            f"{job.base.source}: not the base of {where} (fingerprint expected {expected}, found {actual})"
        )
    writer = ContainerWriter(file)
    total = sum(record.info.nbytes for record in statement.records)
    groups = write_entries(
        writer, _entries(statement.records, numbers, where), job.profile,
        threads=job.threads, progress=job.progress, total=total,
    )  # fmt: skip
    errors = {record.name: record.error for record in statement.records if record.error is not None}
    groups = [
        replace(group, errors=tuple(errors[name] for name in group.names))
        if errors.keys() >= set(group.names)
        else group
        for group in groups
    ]
    if manifest.layout is not None and manifest.layout.stored:
        writer.add_blob(blob(None), job.profile)
    for at, _ in enumerate(item for item in manifest.files if item.stored):
        writer.add_blob(blob(at), job.profile)
    notes = {**manifest.metadata, **job.metadata}
    writer.finish(to_json(replace(manifest, groups=tuple(groups), metadata=notes)))
    with Diff(FileSource.share(file, where)) as diff:
        check_chunks(diff, job.threads)


def _requires(manifest: Mapping[str, Any]) -> list[str]:
    """The features that do not go by how records are coded; older statements do not name them."""
    result, said = manifest.get("result"), manifest.get("requires")
    kept = {feature for feature in said if isinstance(feature, str)} if isinstance(said, list) else set()
    if isinstance(result, dict) and result.get("fingerprint") is None:
        kept.add(UNSEALED)
    return sorted((kept & FEATURES.keys()) - _CHOSEN_ANEW)


def _entries(
    records: Iterable[RecordStatement], numbers: Callable[[RecordStatement], Stored], where: str
) -> Iterator[Entry]:
    for record in records:
        positions, values = numbers(record)
        words = record.info.words
        if positions is None and values.size != words:
            raise CorruptFileError(f"{where}: {printable(record.name)}: {values.size} numbers for {words} words")
        if positions is not None and positions.size == words:
            positions = None
        parts = (Changes(0, words, positions, values),) if words else ()
        base_digest, digest = (
            bytes.fromhex(digest) if digest else None for digest in (record.base_digest, record.result_digest)
        )
        coding, scale = record.value_coding, np.uint32(record.scale).view(np.float32)
        yield Entry(
            record.name, record.info, record.base, base_digest, digest, parts, coding, scale,
            adds_zeros=not coding.exact,
        )  # fmt: skip


def blobs(diff: Diff) -> dict[str, bytes]:
    """What a diff stores beside tensors: the layout under "", side files under their names."""
    contents = {item.name: side_content(diff, item) for item in diff.manifest.files if item.stored}
    layout = diff.manifest.layout
    if layout is not None and layout.stored:
        contents[""] = stored_blob(diff, layout)
    return contents

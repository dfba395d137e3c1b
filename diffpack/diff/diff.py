"""Diff and TensorDiff: a diff in memory, decoded only where it is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from blake3 import blake3

from diffpack.checkpoints import Checkpoint, CheckpointLike, open_checkpoint
from diffpack.checkpoints.file_kinds import KINDS, kind_of
from diffpack.checkpoints.overwriting import refuse_overwriting
from diffpack.diff.against import BaseView
from diffpack.diff.group_decoder import GroupDecoder, decoders
from diffpack.diff.record import TensorDiff
from diffpack.errors import CheckpointError, CorruptFileError, MissingTensorError, TruncatedFileError
from diffpack.format import limits
from diffpack.format.chunks import ChunkSpec
from diffpack.format.frame import MAGIC
from diffpack.format.manifest import DIGEST_HEX, MILLIONTHS, Manifest
from diffpack.format.manifest_rules import parse
from diffpack.format.positions.coding import CONTEXTS
from diffpack.format.reader import ContainerReader
from diffpack.format.source import ByteSource, FileSource, MemorySource
from diffpack.support.atomic import atomic_file
from diffpack.support.cache import KEPT_BYTES
from diffpack.tensors.reference import Reference


class Diff(Mapping[str, TensorDiff]):
    """A diff: a lazily decoded mapping from tensor name to `TensorDiff`, sorted by name.

    Made by `diffpack.extract` or `diffpack.open`. Raises `CorruptFileError` or `UnsupportedFormatError` when its
    bytes break a rule: the manifest's rules at once, a chunk's when it is read. Safe from several threads. `path` is
    the file it was opened from, None if it has no name.
    """

    def __init__(self, source: ByteSource, path: Path | None = None) -> None:
        self._source = source
        self.path = path
        self._reader = ContainerReader(source)
        self.name = source.name
        self.nbytes = source.size
        self.manifest: Manifest = parse(self._reader.manifest, source.name)
        self.decoders = decoders(self.manifest.groups, self._reader.chunk, source.name)
        self._places = {
            name: (decoder, record) for decoder in self.decoders for record, name in enumerate(decoder.group.names)
        }
        self._names = sorted(self._places)
        self._records: dict[str, TensorDiff] = {}
        self._blobs = self._blob_chunks()
        self._check_streams()

    def _blob_chunks(self) -> dict[str, int]:
        """Say which chunk holds the layout (under "") and each stored side file; rule C6."""
        following = self.coded_chunks
        names = [""] if self.manifest.layout is not None and self.manifest.layout.stored else []
        names += [item.name for item in self.manifest.files if item.stored]
        if following + len(names) != len(self._reader.chunks):
            raise CorruptFileError(f"{self.name}: {len(self._reader.chunks)} chunks do not fit its records", "C6")
        return {name: following + at for at, name in enumerate(names)}

    def _check_streams(self) -> None:
        """Check that no stream of records is more than is decoded at once; rule F8."""
        for at, chunk in enumerate(self.chunks[: self.coded_chunks]):
            most = max(stream.decoded_bytes for stream in chunk.streams)
            if most > limits.SPAN_STREAM_BYTES:
                raise CorruptFileError(f"{self.name}: chunk {at}: a stream of {most} bytes is over the limit", "F8")

    def check_result_size(self, nbytes: int, base_bytes: int) -> None:
        """Check that a result is not larger than the file and the base explain. Raises `CorruptFileError` (F8)."""
        most = limits.most_result(self.nbytes, base_bytes)
        if nbytes > most:
            raise CorruptFileError(
                f"{self.name}: a result of {nbytes:,} bytes on a base of {base_bytes:,} is over the limit of {most:,}",
                "F8",
            )

    @property
    def coded_chunks(self) -> int:
        """How many chunks hold records, the first of all; a stored layout and side files follow."""
        return self.decoders[-1].chunks.stop if self.decoders else 0

    @property
    def exact(self) -> bool:
        """Whether applying gives the tuned checkpoint, bit for bit."""
        return self.manifest.exact

    @property
    def version(self) -> tuple[int, int]:
        """Version of the format the file says it has: (major, minor)."""
        return self._reader.version

    @property
    def identity(self) -> str:
        """What tells its file from any other: the digest (hexadecimal) of its manifest, which has those of all else."""
        return self._reader.digest.hex()

    @property
    def metadata(self) -> dict[str, str]:
        """The user's key-value pairs."""
        return dict(self.manifest.metadata)

    @property
    def may_need_base(self) -> bool:
        """Whether decoding some of the changes may need the base."""
        return any(decoder.position_coding.needs_base(decoder.group) for decoder in self.decoders)

    def against(self, base: CheckpointLike) -> Mapping[str, TensorDiff]:
        """The records together with the base, which those of the profile "smallest" need to be decoded, and exact ones
        to be given as `differences`.

        Names, dtypes and shapes are checked, the base's bits are not. The base may be a model in memory, with what the
        diff does not touch under other names or not there. Raises `WrongBaseError`, `CheckpointError`.
        """  # noqa: D205 - one sentence
        return self._with(self.view(open_checkpoint(base)).reference)

    def view(self, base: Checkpoint, *, partial: bool = False) -> BaseView:
        """The base as this diff sees it. Raises `WrongBaseError` if a tensor it needs is not there so.

        With `partial` a model in memory may lack some of them.
        """
        return BaseView(base, self.manifest, self, lambda name: self.digests(name)[0], self.name, partial=partial)

    def bound(self, references: Callable[[str], Reference]) -> Mapping[str, TensorDiff]:
        """The records with access to their references if any may need it, else the diff."""
        return self._with(references) if self.may_need_base else self

    def read_once(
        self, kept_bytes: int, references: Callable[[str], Reference] | None = None
    ) -> Mapping[str, TensorDiff]:
        """The records for one walk through them: of what is decoded only `kept_bytes` a group are kept, and one span.

        Walked in the order of their groups each span is decoded once all the same. `references` as for `bound`.
        """
        return self._with(references, kept_bytes)

    def _with(
        self, references: Callable[[str], Reference] | None, kept_bytes: int = KEPT_BYTES
    ) -> dict[str, TensorDiff]:
        """The records with access to their references, sorted by name."""
        made = decoders(self.manifest.groups, self._reader.chunk, self.name, references, kept_bytes)
        records = {name: TensorDiff(decoder, at) for decoder in made for at, name in enumerate(decoder.group.names)}
        return {name: records[name] for name in self}

    @property
    def chunks(self) -> list[ChunkSpec]:
        """The chunk table."""
        return self._reader.chunks

    @property
    def manifest_bytes(self) -> int:
        """Bytes of the manifest as stored."""
        return self._reader.manifest_bytes

    @property
    def side_file_bytes(self) -> int:
        """Bytes of the side files, as stored."""
        return sum(self.chunks[at].nbytes for name, at in self._blobs.items() if name)

    def digests(self, name: str) -> tuple[bytes | None, bytes | None]:
        """The 16-byte digests of a record's base tensor and result tensor, where recorded."""
        decoder, record = self._place(name)
        columns = (decoder.group.base_digests, decoder.group.result_digests)
        first = record * DIGEST_HEX
        base, result = (column and bytes.fromhex(column[first : first + DIGEST_HEX]) for column in columns)
        return base or None, result or None

    def stored_bytes(self, name: str) -> int:
        """Bytes of the chunks that hold a record; of a shared chunk, by the share of its words."""
        decoder, record = self._place(name)
        return round(sum(share * self.chunks[at].nbytes for at, share in decoder.shares(record)))

    def error(self, name: str) -> float | None:
        """The relative L2 error |result - tuned| / |tuned - base| of a record: 0 where all is stored exactly.

        None where the diff does not record it.
        """
        decoder, record = self._place(name)
        if not self.exact and self.manifest.error is None:
            return None
        errors = decoder.group.errors
        return errors[record] / MILLIONTHS if errors else 0.0  # none where all is stored exactly

    def contexts(self, name: str) -> tuple[str, ...]:
        """Say by what a record's words were put into classes: "rows", "columns", "exponent"; nothing without classes.

        Reads the first streams of its chunks. Raises `CorruptFileError`.
        """
        decoder, record = self._place(name)
        coding = decoder.position_coding
        if not coding.context_streams:
            return tuple(coding.contexts([], self.name))
        used: set[str] = set()
        for at, _ in decoder.shares(record):
            if at not in decoder.span_chunks:
                continue
            used.update(coding.contexts(self._reader.chunk(at, coding.context_streams), f"{self.name}: chunk {at}"))
        return tuple(context for context in CONTEXTS if context in used)

    def blob(self, name: str) -> bytes:
        """The stored layout ("") or a stored side file; checked against its size. Raises `CorruptFileError`."""
        streams = self._reader.chunk(self._blobs[name])
        if len(streams) != 1 or streams[0].dtype != np.uint8:
            raise CorruptFileError(f"{self.name}: chunk {self._blobs[name]}: not one u8 stream", "L3" if name else "L2")
        return streams[0].tobytes()

    def _place(self, name: str) -> tuple[GroupDecoder, int]:
        try:
            return self._places[name]
        except KeyError:
            raise MissingTensorError(f"{self.name}: no record for the tensor {name!r}") from None

    def __getitem__(self, name: str) -> TensorDiff:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = TensorDiff(*self._place(name))
        return record

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the diff to a file, whole or not at all. Raises `UsageError` if it exists and `force` is false."""
        target = Path(path)
        refuse_overwriting(target, [], force, folder=False)
        with atomic_file(target, replace=force) as file:
            self.copy_to(file)

    def stored(self, chunk: ChunkSpec) -> bytes:
        """A chunk's bytes as they are stored, checked against its digest. Raises `CorruptFileError`."""
        data = self._source.read(chunk.offset, chunk.nbytes)
        if blake3(data).hexdigest() != chunk.digest:
            raise CorruptFileError(f"{self.name}: a chunk is damaged (its digest does not match)", "C2")
        return data

    def copy_to(self, file: BinaryIO) -> None:
        """Write the diff's bytes to an open binary file. Raises `CorruptFileError` for a damaged chunk, at the end."""
        step = 1 << 20
        for start in range(0, self.nbytes, step):
            file.write(self._source.read(start, min(step, self.nbytes - start)))
        for chunk in self.chunks:
            self.stored(chunk)

    def close(self) -> None:
        """Close the file behind the diff."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        mode = "exact" if self.exact else "lossy"
        return f"Diff({self.name!r}, {mode}, {len(self)} records, {self.nbytes} bytes)"


DiffLike = str | os.PathLike[str] | bytes | Diff
"""What a function that wants a diff takes: a path, the bytes of a file, or an opened diff."""


def open_diff(source: DiffLike) -> Diff:
    """Open a diff; its chunks are read when they are needed.

    Raises `DiffpackError` if the file cannot be opened, `CorruptFileError`, `UnsupportedFormatError`.
    """
    if isinstance(source, Diff):
        return source
    if isinstance(source, bytes):
        return Diff(MemorySource(source, "diff in memory"))
    opened = FileSource.open(Path(source))
    try:
        return Diff(opened, Path(source))
    except TruncatedFileError:
        opened.close()
        _refuse_no_diff(Path(source))
        raise
    except BaseException:
        opened.close()
        raise


def _refuse_no_diff(path: Path) -> None:
    """Raise `TruncatedFileError` for a file that is surely no diff, and say what it is."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            return
    try:
        kind = kind_of(path)
    except CheckpointError as told:
        raise TruncatedFileError(str(told), "F1", hint="") from None
    if kind is not None:
        hint = "name the diff that `diffpack extract` wrote of it"
        raise TruncatedFileError(f"{path}: not a diff but {KINDS[kind]}", "F1", hint=hint)


def open_diffs(sources: DiffLike | Sequence[DiffLike]) -> list[Diff]:
    """Open one diff, or several. Raises as `open_diff`."""
    if isinstance(sources, Diff | str | bytes | os.PathLike):
        return [open_diff(sources)]
    return [open_diff(item) for item in sources]


def files_behind(diffs: Iterable[Diff], *checkpoints: Checkpoint | None) -> list[Path]:
    """The files that diffs, and checkpoints that are given, were opened from."""
    files = [diff.path for diff in diffs if diff.path is not None]
    return files + [path for checkpoint in checkpoints if checkpoint is not None for path in checkpoint.files]

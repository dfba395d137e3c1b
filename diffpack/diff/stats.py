"""stats: what diffs change and what they cost, each and together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from diffpack.checkpoints import CheckpointLike, open_checkpoint
from diffpack.checkpoints.fingerprint import fingerprint
from diffpack.diff.diff import Diff, DiffLike, open_diffs
from diffpack.diff.extent import other_names
from diffpack.diff.group_decoder import GroupDecoder
from diffpack.errors import WrongBaseError
from diffpack.format.chunks import ChunkSpec
from diffpack.format.manifest import MILLIONTHS
from diffpack.format.values.summed import SUMMED


@dataclass(frozen=True)
class TensorStats:
    """One record: `changed` counts stored changes, in entries (words for complex and sub-byte dtypes).

    `error` is the relative L2 error |result - tuned| / |tuned - base|, None where the diff does not record it. `rank`
    is the largest of its low-rank factors; with these every entry counts as changed.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    position_coding_id: str
    value_coding_id: str
    changed: int
    entries: int
    error: float | None
    rank: int = 0

    @property
    def density(self) -> float:
        """Changed entries / entries."""
        return self.changed / self.entries if self.entries else 0.0


@dataclass(frozen=True)
class DiffStats:
    """One diff. `nbytes` is the file; `base_bytes` and `result_bytes` are tensor data.

    Of its bytes `side_file_bytes` are those of side files; the others are what the weights cost: `weight_bytes`, of
    which `weight_share` and `weight_bits` speak. `layout_bytes` are those of the headers of weights files.
    `factor_bytes`, `position_bytes` and `value_bytes` are those of the chunks that hold records: low-rank factors,
    where entries change, and everything else.
    `error` is the relative L2 error over all float tensors: 0 for an exact diff, None where it is not recorded.
    """

    name: str
    exact: bool
    nbytes: int
    manifest_bytes: int
    factor_bytes: int
    position_bytes: int
    value_bytes: int
    layout_bytes: int
    side_file_bytes: int
    base_fingerprint: str
    base_name: str | None
    base_bytes: int
    base_entries: int
    result_bytes: int
    result_entries: int
    changed: int
    removed: int
    aliases: int
    error: float | None
    tensors: tuple[TensorStats, ...]
    recipe: Mapping[str, str] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Changed entries / entries of the result."""
        return self.changed / self.result_entries if self.result_entries else 0.0

    @property
    def weight_bytes(self) -> int:
        """Bytes of the file without side files."""
        return self.nbytes - self.side_file_bytes

    @property
    def share_of_base(self) -> float:
        """Bytes of the file / bytes of the base's tensors."""
        return self.nbytes / self.base_bytes if self.base_bytes else 0.0

    @property
    def weight_share(self) -> float:
        """Bytes of the file without side files / bytes of the base's tensors."""
        return self.weight_bytes / self.base_bytes if self.base_bytes else 0.0

    @property
    def bits_per_change(self) -> float:
        """Bits of the file / changed entries."""
        return 8 * self.nbytes / self.changed if self.changed else 0.0

    @property
    def weight_bits(self) -> float:
        """Bits of the file without side files / changed entries."""
        return 8 * self.weight_bytes / self.changed if self.changed else 0.0


@dataclass(frozen=True)
class Stats:
    """Several diffs, and what storing them with their bases costs against storing full copies."""

    diffs: tuple[DiffStats, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all diffs."""
        return sum(item.nbytes for item in self.diffs)

    @property
    def side_file_bytes(self) -> int:
        """Bytes of the side files in all diffs."""
        return sum(item.side_file_bytes for item in self.diffs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all diffs without side files."""
        return self.nbytes - self.side_file_bytes

    @property
    def base_bytes(self) -> int:
        """Bytes of the distinct bases."""
        return sum({item.base_fingerprint: item.base_bytes for item in self.diffs}.values())

    @property
    def full_bytes(self) -> int:
        """Bytes of all results stored as full copies."""
        return sum(item.result_bytes for item in self.diffs)

    @property
    def share_of_base(self) -> float:
        """Bytes of all diffs / bytes of the distinct bases."""
        return self.nbytes / self.base_bytes if self.base_bytes else 0.0

    @property
    def weight_share(self) -> float:
        """Bytes of all diffs without side files / bytes of the distinct bases."""
        return self.weight_bytes / self.base_bytes if self.base_bytes else 0.0


def stats(
    diffs: DiffLike | Sequence[DiffLike], base: CheckpointLike | None = None, *, threads: int | None = None
) -> Stats:
    """Count what each diff changes and what it costs; decodes what the manifest does not count, needs no base.

    With `base`, raises `WrongBaseError` if a diff has another one. Raises `CorruptFileError`.
    """
    opened = open_diffs(diffs)
    counted = tuple(map(diff_stats, opened))
    if base is not None:
        checkpoint = open_checkpoint(base)
        actual = fingerprint(checkpoint, threads=threads)
        for diff, item in zip(opened, counted, strict=True):
            if item.base_fingerprint != actual:
                raise WrongBaseError(
                    f"{checkpoint.source}: not the base of {item.name} "
                    f"(fingerprint expected {item.base_fingerprint}, found {actual}){other_names(diff, checkpoint)}"
                )
    return Stats(counted)


def diff_stats(diff: Diff) -> DiffStats:
    """Count one diff. Raises `CorruptFileError`."""
    manifest = diff.manifest
    tensors = [item for decoder in diff.decoders for item in _group_stats(diff, decoder)]
    coded = diff.coded_chunks
    around = sum(chunk.nbytes for chunk in diff.chunks[coded:])
    side_file_bytes = diff.side_file_bytes
    spans = [diff.chunks[at] for decoder in diff.decoders for at in decoder.span_chunks]
    position_bytes = sum(map(_position_bytes, spans))
    factor_bytes = sum(diff.chunks[at].nbytes for decoder in diff.decoders for at in decoder.factor_chunks)
    value_bytes = sum(chunk.nbytes for chunk in diff.chunks[:coded]) - position_bytes - factor_bytes
    return DiffStats(
        name=diff.name,
        exact=diff.exact,
        nbytes=diff.nbytes,
        manifest_bytes=diff.manifest_bytes,
        factor_bytes=factor_bytes,
        position_bytes=position_bytes,
        value_bytes=value_bytes,
        layout_bytes=around - side_file_bytes,
        side_file_bytes=side_file_bytes,
        base_fingerprint=manifest.base.fingerprint,
        base_name=manifest.base.name,
        base_bytes=manifest.base.bytes,
        base_entries=manifest.base.entries,
        result_bytes=manifest.result.bytes,
        result_entries=manifest.result.entries,
        changed=sum(item.changed for item in tensors),
        removed=len(manifest.removed),
        aliases=len(manifest.aliases),
        error=_error(diff),
        tensors=tuple(sorted(tensors, key=lambda item: item.name)),
        recipe=manifest.recipe,
    )


def _position_bytes(chunk: ChunkSpec) -> int:
    """Count the bytes that say where the chunk of a span changes words: gaps, and how classes are stored."""
    where = [stream.nbytes for stream in chunk.streams if stream.dtype.startswith("u")]
    return sum(where) if len(chunk.streams) > 1 else 0


def _error(diff: Diff) -> float | None:
    if diff.exact:
        return 0.0
    return None if diff.manifest.error is None else diff.manifest.error / MILLIONTHS


def _group_stats(diff: Diff, decoder: GroupDecoder) -> Iterator[TensorStats]:
    records = [diff[name] for name in decoder.group.names]
    many = decoder.group.counts is None and records[0].value_coding is not SUMMED
    counts = decoder.counts() if many else [record.count for record in records]
    for record, count in zip(records, counts, strict=True):
        yield TensorStats(
            record.name, record.kind, record.dtype, record.shape, *record.coding, count, record.info.words,
            diff.error(record.name), record.rank,
        )  # fmt: skip

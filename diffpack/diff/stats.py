"""What one diff changes, and where its bytes are: from the manifest, or tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from diffpack.diff.diff import Diff
from diffpack.diff.group_decoder import GroupDecoder
from diffpack.format.chunks import ChunkSpec
from diffpack.format.manifest import MILLIONTHS
from diffpack.format.values.summed import SUMMED


@dataclass(frozen=True)
class TensorStats:
    """One record: `changed` counts stored changes, in entries (words for complex and sub-byte dtypes).

    `nbytes` are those of its chunks; of a chunk that several records share each has its part, by their words, so that
    those of all records add up to the chunks. `error` is the relative L2 error |result - tuned| / |tuned - base|, None
    where the diff does not record it. `rank` is the largest of its low-rank factors; with these every entry counts as
    changed.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    position_coding_id: str
    value_coding_id: str
    changed: int
    entries: int
    nbytes: int
    tensor_bytes: int
    error: float | None
    rank: int = 0

    @property
    def density(self) -> float:
        """Changed entries / entries."""
        return self.changed / self.entries if self.entries else 0.0


@dataclass(frozen=True)
class CodingStats:
    """The records that are stored in one way: how many, and the bytes of their chunks."""

    position_coding_id: str
    value_coding_id: str
    rank: int
    records: int
    nbytes: int


@dataclass(frozen=True)
class DiffStats:
    """One diff. `nbytes` is the file; `base_bytes` and `result_bytes` are tensor data.

    Of its bytes `side_file_bytes` are those of side files; the others are what the weights cost: `weight_bytes`, of
    which `weight_share` and `weight_bits` speak. `layout_bytes` are those of the headers of weights files.
    `factor_bytes`, `position_bytes` and `value_bytes` are those of the chunks that hold records: low-rank factors,
    where entries change, and everything else; with the manifest, the layout, the side files and `frame_bytes` (what
    stands around them) they are the file.
    `changed` is exact if `counted`, else the most it can be: a manifest does not tell how many of a tensor's entries
    stay as they are where all are stored. `error` is the relative L2 error over all float tensors: 0 for an exact diff,
    None where it is not recorded. `tensors` are there if they were asked for.
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
    frame_bytes: int
    base_fingerprint: str
    base_name: str | None
    base_bytes: int
    base_entries: int
    result_fingerprint: str | None
    result_bytes: int
    result_entries: int
    records: int
    changed: int
    counted: bool
    removed: int
    aliases: int
    error: float | None
    codings: tuple[CodingStats, ...]
    tensors: tuple[TensorStats, ...]
    recipe: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

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


def diff_stats(diff: Diff, *, tensors: bool = True) -> DiffStats:
    """Count one diff: with `tensors` each of its records, which decodes what the manifest does not count.

    Without them reads the manifest alone. Raises `CorruptFileError`.
    """
    manifest, chunks = diff.manifest, diff.chunks
    each = [item for decoder in diff.decoders for item in _group_stats(diff, decoder)] if tensors else []
    told = [count for decoder in diff.decoders for count in _told(decoder, chunks)]
    coded = diff.coded_chunks
    around = sum(chunk.nbytes for chunk in chunks[coded:])
    side_file_bytes = diff.side_file_bytes
    spans = [chunks[at] for decoder in diff.decoders for at in decoder.span_chunks]
    position_bytes = sum(map(_position_bytes, spans))
    factor_bytes = sum(chunks[at].nbytes for decoder in diff.decoders for at in decoder.factor_chunks)
    record_bytes = sum(chunk.nbytes for chunk in chunks[:coded])
    return DiffStats(
        name=diff.name,
        exact=diff.exact,
        nbytes=diff.nbytes,
        manifest_bytes=diff.manifest_bytes,
        factor_bytes=factor_bytes,
        position_bytes=position_bytes,
        value_bytes=record_bytes - position_bytes - factor_bytes,
        layout_bytes=around - side_file_bytes,
        side_file_bytes=side_file_bytes,
        frame_bytes=diff.nbytes - diff.manifest_bytes - record_bytes - around,
        base_fingerprint=manifest.base.fingerprint,
        base_name=manifest.base.name,
        base_bytes=manifest.base.bytes,
        base_entries=manifest.base.entries,
        result_fingerprint=manifest.result.fingerprint,
        result_bytes=manifest.result.bytes,
        result_entries=manifest.result.entries,
        records=len(diff),
        changed=sum(item.changed for item in each) if tensors else sum(count for count, _ in told),
        counted=tensors or all(sure for _, sure in told),
        removed=len(manifest.removed),
        aliases=len(manifest.aliases),
        error=_error(diff),
        codings=_codings(diff),
        tensors=tuple(sorted(each, key=lambda item: item.name)),
        recipe=manifest.recipe,
        metadata=manifest.metadata,
    )


def _position_bytes(chunk: ChunkSpec) -> int:
    """Count the bytes that say where the chunk of a span changes words: gaps, and how classes are stored."""
    where = [stream.nbytes for stream in chunk.streams if stream.dtype.startswith("u")]
    return sum(where) if len(chunk.streams) > 1 else 0


def _error(diff: Diff) -> float | None:
    if diff.exact:
        return 0.0
    return None if diff.manifest.error is None else diff.manifest.error / MILLIONTHS


def _told(decoder: GroupDecoder, chunks: Sequence[ChunkSpec]) -> Iterator[tuple[int, bool]]:
    """How many words a group's records change, as the manifest tells it, and whether that is sure: else the most."""
    group, coding = decoder.group, decoder.position_coding
    words = decoder.line.starts[-1]
    if group.factors is not None and not decoder.predicts:
        yield words, True
    elif group.counts is not None and coding.counted(decoder.value_coding):
        yield sum(group.counts), True
    else:
        start = 0
        for at, stop in zip(decoder.span_chunks, group.ends, strict=True):
            stored = coding.stored([stream.count for stream in chunks[at].streams])
            yield (stop - start, False) if stored is None else (min(stored, stop - start), True)
            start = stop


def _codings(diff: Diff) -> tuple[CodingStats, ...]:
    """The ways records are stored in, those of most bytes first."""
    records: Counter[tuple[str, str]] = Counter()
    nbytes: Counter[tuple[str, str]] = Counter()
    ranks: dict[tuple[str, str], int] = {}
    for decoder in diff.decoders:
        first = diff[decoder.group.names[0]]
        coding, factors = first.coding, decoder.group.factors
        records[coding] += len(decoder)
        nbytes[coding] += sum(diff.chunks[at].nbytes for at in decoder.chunks)
        ranks[coding] = max(ranks.get(coding, 0), factors.rank if factors else 0)
    order = sorted(records, key=lambda coding: (-nbytes[coding], coding))
    return tuple(CodingStats(*coding, ranks[coding], records[coding], nbytes[coding]) for coding in order)


def _group_stats(diff: Diff, decoder: GroupDecoder) -> Iterator[TensorStats]:
    records = [diff[name] for name in decoder.group.names]
    many = decoder.group.counts is None and records[0].value_coding is not SUMMED
    counts = decoder.counts() if many else [record.count for record in records]
    sizes = _record_bytes(decoder, diff.chunks)
    for record, count, nbytes in zip(records, counts, sizes, strict=True):
        yield TensorStats(
            record.name, record.kind, record.dtype, record.shape, *record.coding, count, record.info.words, nbytes,
            record.info.nbytes, diff.error(record.name), record.rank,
        )  # fmt: skip


def _record_bytes(decoder: GroupDecoder, chunks: Sequence[ChunkSpec]) -> list[int]:
    """Bytes of each record of a group; every chunk is shared out whole: by words, and what all have equally."""
    shares: dict[int, list[tuple[int, float]]] = {}
    for record in range(len(decoder)):
        for at, share in decoder.shares(record):
            shares.setdefault(at, []).append((record, share))
    everybody = [(record, 1 / len(decoder)) for record in range(len(decoder))]
    found = [0] * len(decoder)
    for at in decoder.chunks:
        parts = shares.get(at, everybody)
        ends = [round(chunks[at].nbytes * reached) for reached in accumulate(share for _, share in parts)]
        ends[-1] = chunks[at].nbytes
        for (record, _), (start, stop) in zip(parts, pairwise([0, *ends]), strict=True):
            found[record] += stop - start
    return found

"""The rows of a report: plain numbers and texts, and the words for each, as `--json` prints them."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

import msgspec

_Told = msgspec.Meta


class CodingRow(msgspec.Struct, frozen=True):
    """A way of storing."""

    positions: Annotated[str, _Told(description="coding of the positions")]
    values: Annotated[str, _Told(description="coding of the values")]
    rank: Annotated[int, _Told(description="the largest rank of low-rank factors; 0 without any")]
    records: Annotated[int, _Told(description="how many tensors are stored so")]
    bytes: Annotated[int, _Told(description="bytes of the chunks that hold them")]


class TensorRow(msgspec.Struct, frozen=True):
    """A tensor."""

    name: Annotated[str, _Told(description="with --tensors: a tensor the diff stores something of")]
    kind: Annotated[str, _Told(description="changed, resized, retyped or new")]
    dtype: Annotated[str, _Told(description="its dtype, by its safetensors name")]
    shape: Annotated[tuple[int, ...], _Told(description="its shape")]
    positions: Annotated[str, _Told(description="coding of the positions")]
    values: Annotated[str, _Told(description="coding of the values")]
    rank: Annotated[int, _Told(description="the largest rank of its low-rank factors; 0 without any")]
    changed: Annotated[int, _Told(description="its changed entries")]
    entries: Annotated[int, _Told(description="its entries")]
    density: Annotated[float, _Told(description="changed / entries")]
    bytes: Annotated[int, _Told(description="bytes of the chunks that hold it; of a shared chunk its part, by words")]
    tensor_bytes: Annotated[int, _Told(description="bytes of the tensor itself")]
    error: Annotated[float | None, _Told(description="its relative L2 error; null if not recorded")]


class PartRow(msgspec.Struct, frozen=True):
    """Tensors together."""

    key: Annotated[str, _Told(description="with --by: a layer, module or dtype ...")]
    records: Annotated[int, _Told(description="... how many tensors of it the diff stores something of")]
    changed: Annotated[int, _Told(description="their changed entries")]
    entries: Annotated[int, _Told(description="their entries")]
    density: Annotated[float, _Told(description="changed / entries")]
    bytes: Annotated[int, _Told(description="bytes of the chunks that hold them")]


class DiffRow(msgspec.Struct, frozen=True, kw_only=True):
    """A diff."""

    path: Annotated[str, _Told(description="the diff")]
    exact: Annotated[bool, _Told(description="whether applying it gives the tuned checkpoint bit for bit")]
    changed: Annotated[int, _Told(description="entries stored as changed; the most there can be if not `counted`")]
    counted: Annotated[bool, _Told(description="whether `changed` is exact: --tensors, --by and --count make it so")]
    entries: Annotated[int, _Told(description="entries of the result")]
    density: Annotated[float, _Told(description="changed / entries")]
    bytes: Annotated[int, _Told(description="bytes of the file")]
    weight_bytes: Annotated[int, _Told(description="bytes of the file without side files")]
    bits_per_change: Annotated[float, _Told(description="bits of the file for each changed entry (0 if there is none)")]
    weight_bits: Annotated[float, _Told(description="the same of weight_bytes")]
    share_of_base: Annotated[float, _Told(description="bytes of the file / bytes of the base's tensors")]
    weight_share: Annotated[float, _Told(description="weight_bytes / bytes of the base's tensors")]
    factor_bytes: Annotated[int, _Told(description="bytes of low-rank factors")]
    position_bytes: Annotated[int, _Told(description="bytes that say where entries change")]
    value_bytes: Annotated[int, _Told(description="bytes that say what changes")]
    manifest_bytes: Annotated[int, _Told(description="bytes of the manifest")]
    file_bytes: Annotated[int, _Told(description="bytes of the layout and of side files")]
    layout_bytes: Annotated[int, _Told(description="bytes of the layout: the headers of weights files")]
    side_file_bytes: Annotated[int, _Told(description="bytes of side files (config, tokenizer)")]
    frame_bytes: Annotated[int, _Told(description="bytes of the file's header and trailer")]
    base_fingerprint: Annotated[str, _Told(description="content hash of the base")]
    base_name: Annotated[str | None, _Told(description="what people call the base, or null")]
    base_bytes: Annotated[int, _Told(description="bytes of the base's tensors")]
    result_fingerprint: Annotated[
        str | None, _Told(description="content hash of the result, or null if it is not recorded")
    ]
    result_bytes: Annotated[int, _Told(description="bytes of the result's tensors")]
    records: Annotated[int, _Told(description="how many tensors something is stored of")]
    removed: Annotated[int, _Told(description="how many of the base's tensors the result lacks")]
    aliases: Annotated[int, _Told(description="how many tensors are stored as equal to another")]
    error: Annotated[
        float | None,
        _Told(
            description="relative L2 error: norm of result - tuned / norm of tuned - base; 0 if exact, null if unknown"
        ),
    ]
    continues: Annotated[str | None, _Told(description="of a chain: the diff whose result is its base; else null")]
    depth: Annotated[int, _Told(description="how many diffs stand before it in its chain")]
    level: Annotated[int, _Told(description="how far its name is set in where chains are shown")]
    latest: Annotated[bool, _Told(description="whether no other of the diffs continues it")]
    recipe: Annotated[
        dict[str, str],
        _Told(description="how it was made; of a merge also `shared` and `conflicts`, where the diffs met"),
    ]
    codings: Annotated[tuple[CodingRow, ...], _Told(description="how tensors are stored, most bytes first")]
    parts: Annotated[tuple[PartRow, ...] | msgspec.UnsetType, _Told(description="with --by: of the diff")] = (
        msgspec.UNSET
    )
    tensors: Annotated[tuple[TensorRow, ...] | msgspec.UnsetType, _Told(description="with --tensors")] = msgspec.UNSET


class ProblemRow(msgspec.Struct, frozen=True):
    """A diff that is not counted."""

    path: Annotated[str, _Told(description="a diff that could not be counted ...")]
    bytes: Annotated[int | None, _Told(description="... bytes of its file, null if not known")]
    error: Annotated[str, _Told(description="... and why")]
    exit_code: Annotated[int, _Told(description="what the exit code of a verb for this diff alone would be")]


class FamilyRow(msgspec.Struct, frozen=True, kw_only=True):
    """The diffs of a base."""

    base_fingerprint: Annotated[str, _Told(description="a base that is not the result of one of the diffs")]
    base_name: Annotated[str | None, _Told(description="what people call it, or null")]
    base_bytes: Annotated[int, _Told(description="bytes of its tensors")]
    base_entries: Annotated[int, _Told(description="entries of its tensors")]
    models: Annotated[int, _Told(description="how many results no other of the diffs continues: a chain is one model")]
    versions: Annotated[int, _Told(description="how many results there are, one a diff")]
    diff_bytes: Annotated[int, _Told(description="bytes of its diffs")]
    weight_bytes: Annotated[int, _Told(description="the same without side files")]
    side_file_bytes: Annotated[int, _Told(description="bytes of the side files in them")]
    weight_share: Annotated[float, _Told(description="weight_bytes / base_bytes")]
    stored_bytes: Annotated[int, _Told(description="base_bytes + weight_bytes")]
    stored_multiple: Annotated[float, _Told(description="stored_bytes / base_bytes")]
    full_bytes: Annotated[int, _Told(description="bytes of the tensors of all results as full copies")]
    full_multiple: Annotated[float, _Told(description="full_bytes / base_bytes")]
    adapter_bytes: Annotated[int, _Told(description="the base, and an adapter of 3.6 % of it for each diff")]
    adapter_multiple: Annotated[float, _Told(description="adapter_bytes / base_bytes")]
    break_even: Annotated[
        int | None,
        _Told(description="with how many such diffs base and diffs are less than full copies; null if never"),
    ]
    parts: Annotated[tuple[PartRow, ...] | msgspec.UnsetType, _Told(description="with --by: of all its diffs")] = (
        msgspec.UNSET
    )


class TogetherRow(msgspec.Struct, frozen=True, kw_only=True):
    """All diffs."""

    diffs: Annotated[int, _Told(description="how many diffs")]
    bases: Annotated[int, _Told(description="how many different bases they come from")]
    models: Annotated[int, _Told(description="how many results no other of the diffs continues")]
    diff_bytes: Annotated[int, _Told(description="bytes of all diffs")]
    weight_bytes: Annotated[int, _Told(description="bytes of all diffs without side files")]
    side_file_bytes: Annotated[int, _Told(description="bytes of the side files in all diffs")]
    base_bytes: Annotated[int, _Told(description="bytes of the bases' tensors, each base once")]
    total_bytes: Annotated[
        int, _Told(description="diff_bytes + base_bytes: what keeping the bases and the diffs costs")
    ]
    total_weight_bytes: Annotated[int, _Told(description="the same without side files")]
    full_bytes: Annotated[int, _Told(description="bytes of the tensors of all results as full copies")]
    share_of_base: Annotated[float, _Told(description="diff_bytes / base_bytes")]
    weight_share: Annotated[float, _Told(description="weight_bytes / base_bytes")]


class BudgetRow(msgspec.Struct, frozen=True):
    """A storage budget."""

    bytes: Annotated[int, _Told(description="with --budget: bytes there are for bases and diffs")]
    used: Annotated[int, _Told(description="bytes of the bases' tensors and of all diffs")]
    more: Annotated[int, _Told(description="how many more such diffs fit; negative: how many are too many")]


class ExcessRow(msgspec.Struct, frozen=True):
    """A diff the gate does not let through."""

    path: Annotated[str | None, _Told(description="what is larger than it may be; null: all diffs together")]
    bytes: Annotated[int, _Told(description="its bytes")]
    most: Annotated[int, _Told(description="the bytes it may have")]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What `diffpack stats --json` prints."""

    diffs: Annotated[tuple[DiffRow, ...], _Told(description="each diff, chains in their order")]
    problems: Annotated[tuple[ProblemRow, ...], _Told(description="what could not be counted")]
    families: Annotated[tuple[FamilyRow, ...], _Told(description="the diffs by the base they come from")]
    together: Annotated[TogetherRow, _Told(description="all of them")]
    budget: Annotated[BudgetRow | None, _Told(description="of --budget, else null")]
    exceeded: Annotated[tuple[ExcessRow, ...], _Told(description="of --fail-over and --fail-over-total")]
    base_checked: Annotated[bool, _Told(description="whether --base was compared with every diff")]


def plain(row: msgspec.Struct) -> dict[str, Any]:
    """A row as a dictionary of numbers, texts and lists."""
    made: dict[str, Any] = msgspec.to_builtins(row)
    return made


def schema() -> dict[str, Any]:
    """The JSON Schema of what `--json` prints."""
    return msgspec.json.schema(Document)


def words(kind: type[msgspec.Struct] = Document, before: str = "") -> dict[str, str]:
    """What each member is; `a[].b` is member b of every item of the list a."""
    told: dict[str, str] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        meaning = next(item.description for item in hint.__metadata__ if isinstance(item, msgspec.Meta))
        rows = [part for part in _parts(hint.__origin__) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
        many = "[]" if "tuple" in str(hint.__origin__) else ""
        if rows:
            told |= words(rows[0], f"{before}{name}{many}.")
        else:
            told[f"{before}{name}"] = meaning or ""
    return told


def _parts(hint: Any) -> list[Any]:
    """A type, and those it is made of."""
    return [hint, *(found for item in getattr(hint, "__args__", ()) for found in _parts(item))]

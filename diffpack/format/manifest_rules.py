"""The rules a manifest keeps, checked as it is read (sections 3 and 5 to 7 of the specification)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec

from diffpack.errors import CorruptFileError
from diffpack.format import limits
from diffpack.format.manifest import DIGEST_HEX, Group, Manifest
from diffpack.format.positions import CODINGS as POSITION_CODINGS
from diffpack.format.positions.rule import Rule
from diffpack.format.values import CODINGS as VALUE_CODINGS
from diffpack.support.names import is_plain_file_name
from diffpack.tensors.dtypes import CONVERTIBLE, DTYPES, DType


def parse(value: dict[str, Any], where: str) -> Manifest:
    """Type and check a manifest read from a file. Raises `CorruptFileError` naming the rule."""
    try:
        manifest = msgspec.convert(value, Manifest, strict=True)
    except msgspec.ValidationError as error:
        raise CorruptFileError(f"{where}: manifest: {error}", "M2") from None
    _check_absent(value, where)
    _check_hex(manifest.base.fingerprint, 64, where)
    _check_seal(manifest, where)
    if list(manifest.removed) != sorted(set(manifest.removed)):
        raise CorruptFileError(f"{where}: 'removed' is not sorted", "M2")
    taken = set(manifest.aliases) | set(manifest.removed)
    if len(taken) != len(manifest.aliases) + len(manifest.removed):
        raise CorruptFileError(f"{where}: a tensor is both an alias and removed", "G1")
    for index, group in enumerate(manifest.groups):
        _check_group(group, manifest.exact, f"{where}: group {index}")
        _check_names(group, taken, f"{where}: group {index}")
    _check_required(manifest, where)
    _check_aliases(manifest, where)
    _check_files(manifest, where)
    return manifest


def _check_absent(value: dict[str, Any], where: str) -> None:
    """Check that members which may be absent are not null instead; the types above do not tell these apart."""
    holders = [("", value), ("base", value["base"]), ("layout", value["layout"] or {})]
    for kind, holder in [*holders, *(("group", group) for group in value["groups"])]:
        for name in _OPTIONAL[kind] & holder.keys():
            if holder[name] is None:
                raise CorruptFileError(f"{where}: manifest: {name!r} is null", "M2")


_OPTIONAL = {
    "": {"error"},
    "base": {"name", "revision"},
    "layout": {"sha256"},
    "group": {"errors", "counts", "base_digests", "result_digests", "rule"},
}
"""What may be absent where; elsewhere a later version may give such a name to a member that may be null."""


def _check_seal(manifest: Manifest, where: str) -> None:
    """Check that only a lossy diff which says so leaves its result's fingerprint open."""
    found = manifest.result.fingerprint
    if found is not None:
        _check_hex(found, 64, where)
    unsealed = "unsealed" in manifest.requires
    if unsealed != (found is None) or (unsealed and manifest.exact):
        raise CorruptFileError(f"{where}: the result's fingerprint and the feature 'unsealed' do not fit", "M4")


def _check_names(group: Group, taken: set[str], where: str) -> None:
    for before, name in zip(("", *group.names), group.names, strict=False):
        if before >= name and before + name:
            raise CorruptFileError(f"{where}: its names are not sorted at {name!r}", "G1")
        if name in taken:
            raise CorruptFileError(f"{where}: {name!r} has two records", "G1")
        _check_length(name, where)
        taken.add(name)


def _check_length(name: str, where: str) -> None:
    if len(name) > limits.NAME_BYTES // 4 and len(name.encode()) > limits.NAME_BYTES:
        raise CorruptFileError(f"{where}: a name is over the limit", "F8")


def _check_group(group: Group, exact: bool, where: str) -> None:
    if group.dtype not in DTYPES or (group.base is not None and group.base not in DTYPES):
        raise CorruptFileError(f"{where}: unknown dtype {group.dtype!r} or {group.base!r}", "G2")
    if group.positions not in POSITION_CODINGS or group.values not in VALUE_CODINGS:
        raise CorruptFileError(f"{where}: unknown coding {group.positions!r} or {group.values!r}", "G2")
    count = len(group.names)
    if not count or len(group.shapes) != count or (group.base is None) != (group.base_digests is None):
        raise CorruptFileError(f"{where}: columns of different length", "G2")
    for digests in (group.base_digests, group.result_digests):
        if digests is not None:
            _check_hex(digests, count * DIGEST_HEX, where, "G2")
    if group.base not in (None, group.dtype) and not {group.base, group.dtype} <= CONVERTIBLE:
        raise CorruptFileError(f"{where}: {group.base} is not converted to {group.dtype}", "G4")
    if group.errors is not None and len(group.errors) != count:
        raise CorruptFileError(f"{where}: not one error for each record", "G2")
    if group.values != "exact" and not group.tensor_dtype.arithmetic:
        raise CorruptFileError(f"{where}: {group.values} values in {group.dtype} tensors", "G5")
    if exact and (group.result_digests is None or group.values != "exact"):
        raise CorruptFileError(f"{where}: an exact diff without result digests, or with lossy values", "G7")
    length = sum(_words(group.tensor_dtype, shape, where) for shape in group.shapes)
    ends = (0, *group.ends)
    if ends[-1] != length or any(a >= b for a, b in pairwise(ends)):
        raise CorruptFileError(f"{where}: its spans do not cut its {length} words", "G3")
    if length > limits.WORDS:
        raise CorruptFileError(f"{where}: {length} words are over the limit", "F8")
    _check_spans(group, where)
    _check_resized(group, where)


def _check_required(manifest: Manifest, where: str) -> None:
    """Check that the codings of groups that older readers do not know are required."""
    codings = {group.positions for group in manifest.groups} | {group.values for group in manifest.groups}
    for coding, rule in (("classes", "K1"), ("levels", "R1"), ("grid", "R1"), ("rule", "W1")):
        if coding in codings and coding not in manifest.requires:
            raise CorruptFileError(f"{where}: groups in {coding}, which it does not require", rule)


def _check_spans(group: Group, where: str) -> None:
    """Check what groups in classes, in levels and of a rule need."""
    if (group.values == "grid") > (group.positions == "levels"):
        raise CorruptFileError(f"{where}: grid values that are not in levels", "R1")
    if group.positions == "rule":
        _check_rule(group, where)
    if group.positions not in ("classes", "levels"):
        return
    rule = "K1" if group.positions == "classes" else "R1"
    if group.positions == "classes" and (
        group.values != "exact" or group.base is None or group.dtype not in CONVERTIBLE
    ):
        raise CorruptFileError(f"{where}: classes need exact values, a base, and a dtype with an exponent", rule)
    if group.positions == "levels" and group.values not in ("exact", "grid"):
        raise CorruptFileError(f"{where}: {group.values} values in levels", rule)
    if group.values == "exact" and (group.counts is None or len(group.counts) != len(group.names)):
        raise CorruptFileError(f"{where}: not one count for each record", rule)
    if any(b - a > limits.CLASSES_SPAN_WORDS for a, b in pairwise((0, *group.ends))):
        raise CorruptFileError(f"{where}: a span of {group.positions} over the limit", "F8")


def _check_rule(group: Group, where: str) -> None:
    """Check that a group says by which rule words are chosen, and how many of each record."""
    rule = Rule.parse(group.rule or "")
    if rule is None:
        raise CorruptFileError(f"{where}: {group.rule!r} is no rule for positions", "W1")
    if group.counts is None or len(group.counts) != len(group.names):
        raise CorruptFileError(f"{where}: not one count for each record", "W1")
    words = [group.tensor_dtype.words(shape) for shape in group.shapes]
    if any(not 0 <= count <= size for count, size in zip(group.counts, words, strict=True)):
        raise CorruptFileError(f"{where}: more words chosen than a record has", "W1")
    if rule.by_weight and (group.base is None or group.dtype not in CONVERTIBLE):
        raise CorruptFileError(f"{where}: the {rule} words need a base of floats", "W2")
    if max(words) > limits.RULE_WORDS:
        raise CorruptFileError(f"{where}: a record too large for a rule", "F8")


def _check_resized(group: Group, where: str) -> None:
    if not group.resized:
        return
    shapes = dict(zip(group.names, group.shapes, strict=True))
    if group.base is None or group.tensor_dtype.bits < 8:
        raise CorruptFileError(f"{where}: resized records without a base to resize", "G6")
    for name, shape in group.resized.items():
        _words(group.tensor_dtype, shape, where)
        now = shapes.get(name)
        if now is None or not shape or len(now) != len(shape) or now == shape:
            raise CorruptFileError(f"{where}: {name!r} cannot be resized from {list(shape)}", "G6")


def _words(dtype: DType, shape: tuple[int, ...], where: str) -> int:
    if len(shape) > limits.DIMENSIONS or any(size < 0 for size in shape):
        raise CorruptFileError(f"{where}: an impossible shape {list(shape)[:8]}", "F8")
    words = dtype.words(shape)
    if words > limits.WORDS:
        raise CorruptFileError(f"{where}: a tensor of {words} words is over the limit", "F8")
    return words


def _check_aliases(manifest: Manifest, where: str) -> None:
    for name in (*manifest.aliases, *manifest.removed):
        _check_length(name, where)
    for name, target in manifest.aliases.items():
        if target in manifest.aliases or target in manifest.removed:
            raise CorruptFileError(f"{where}: the alias {name!r} leads to {target!r}, which is none", "A5")


def _check_files(manifest: Manifest, where: str) -> None:
    layout = manifest.layout
    names = [item.name for item in manifest.files]
    if layout is not None:
        _check_hex(layout.digest, DIGEST_HEX, where)
        parts = [name for name, _ in layout.files] + ([layout.index[0]] if layout.index else [])
        if not layout.folder and parts != [""]:
            raise CorruptFileError(f"{where}: a layout without a folder that is not one file named nothing", "L1")
        if not layout.files:
            raise CorruptFileError(f"{where}: a layout without files", "L2")
        for digest in layout.sha256 or ():
            _check_hex(digest, 64, where)
        if layout.sha256 is not None and len(layout.sha256) != len(parts):
            raise CorruptFileError(f"{where}: not one SHA-256 for each file of the layout", "L2")
        names += parts if layout.folder else []
    for item in manifest.files:
        _check_hex(item.digest, DIGEST_HEX, where)
    if not all(is_plain_file_name(name) for name in names):
        raise CorruptFileError(f"{where}: a file name that is not plain", "L1")
    if len({name.casefold() for name in names}) != len(names):
        raise CorruptFileError(f"{where}: two files with one name", "L1")


def _check_hex(text: str, digits: int, where: str, rule: str = "M2") -> None:
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise CorruptFileError(f"{where}: {text[:16]!r} is not {digits} hex digits", rule)

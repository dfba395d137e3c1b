"""The rules a manifest keeps, checked as it is read (sections 3 and 5 to 7 of the specification)."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec

from diffpack.errors import CorruptFileError
from diffpack.format import limits
from diffpack.format.factors.line import check_table
from diffpack.format.features import CODE, COPIES, LOWRANK, PATHS, SLICES, UNSEALED
from diffpack.format.file_names import are_weights, clash, is_code, is_plain_file_name, is_plain_path, is_weights
from diffpack.format.hdf5_structure import from_content
from diffpack.format.manifest import DIGEST_HEX, Group, Manifest, to_canonical
from diffpack.format.positions import POSITION_CODINGS
from diffpack.format.values import VALUE_CODINGS
from diffpack.support.names import printable
from diffpack.tensors.digests import short_digest
from diffpack.tensors.dtypes import CONVERTIBLE, DTYPES, DType

_SHOWN_LETTERS = 60  # of a file name that breaks a rule: it may be of any length


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
    _check_copies(manifest, where)
    _check_slices(manifest, where)
    _check_files(manifest, where)
    _check_structure(manifest, where)
    return manifest


def _check_absent(value: dict[str, Any], where: str) -> None:
    """Check that members which may be absent are not null instead; the types above do not tell these apart."""
    holders = [("", value), ("base", value["base"]), ("layout", value["layout"] or {})]
    for kind, holder in [*holders, *(("group", group) for group in value["groups"])]:
        for name in _OPTIONAL[kind] & holder.keys():
            if holder[name] is None:
                raise CorruptFileError(f"{where}: manifest: {name!r} is null", "M2")


_OPTIONAL = {
    "": {"copies", "error", "slices", "structure"},
    "base": {"name", "revision"},
    "layout": {"sha256"},
    "group": {"errors", "counts", "base_digests", "result_digests", "rule", "factors"},
}
"""What may be absent where; elsewhere a later version may give such a name to a member that may be null."""


def _check_seal(manifest: Manifest, where: str) -> None:
    """Check that only a lossy diff which says so leaves its result's fingerprint open."""
    fingerprint = manifest.result.fingerprint
    if fingerprint is not None:
        _check_hex(fingerprint, 64, where)
    unsealed = UNSEALED in manifest.requires
    if unsealed != (fingerprint is None) or (unsealed and manifest.exact):
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
    if group.dtype not in DTYPES or (group.base_dtype is not None and group.base_dtype not in DTYPES):
        raise CorruptFileError(f"{where}: unknown dtype {group.dtype!r} or {group.base_dtype!r}", "G2")
    if group.position_coding_id not in POSITION_CODINGS or group.value_coding_id not in VALUE_CODINGS:
        unknown = f"{group.position_coding_id!r} or {group.value_coding_id!r}"
        raise CorruptFileError(f"{where}: unknown coding {unknown}", "G2")
    count = len(group.names)
    if not count or len(group.shapes) != count or (group.base_dtype is None) != (group.base_digests is None):
        raise CorruptFileError(f"{where}: columns of different length", "G2")
    for digests in (group.base_digests, group.result_digests):
        if digests is not None:
            _check_hex(digests, count * DIGEST_HEX, where, "G2")
    if group.base_dtype not in (None, group.dtype) and not {group.base_dtype, group.dtype} <= CONVERTIBLE:
        raise CorruptFileError(f"{where}: {group.base_dtype} is not converted to {group.dtype}", "G4")
    if group.errors is not None and len(group.errors) != count:
        raise CorruptFileError(f"{where}: not one error for each record", "G2")
    value_coding = VALUE_CODINGS[group.value_coding_id]
    if not value_coding.exact and not group.tensor_dtype.arithmetic:
        raise CorruptFileError(f"{where}: {value_coding.id} values in {group.dtype} tensors", "G5")
    if exact and (group.result_digests is None or not value_coding.exact):
        raise CorruptFileError(f"{where}: an exact diff without result digests, or with lossy values", "G7")
    shapes = Counter(group.shapes)  # there may be tens of thousands, of few kinds
    length = sum(_words(group.tensor_dtype, shape, where) * times for shape, times in shapes.items())
    ends = (0, *group.ends)
    if ends[-1] != length or any(a >= b for a, b in pairwise(ends)):
        raise CorruptFileError(f"{where}: its spans do not cut its {length} words", "G3")
    if length > limits.WORDS:
        raise CorruptFileError(f"{where}: {length} words are over the limit", "F8")
    _check_codings(group, where)
    _check_resized(group, where)


def _check_required(manifest: Manifest, where: str) -> None:
    """Check that the codings of groups that older readers do not know are required."""
    for group in manifest.groups:
        codings = POSITION_CODINGS[group.position_coding_id], VALUE_CODINGS[group.value_coding_id]
        for coding in codings:
            if coding.since is not None and coding.id not in manifest.requires:
                raise CorruptFileError(f"{where}: groups in {coding.id}, which it does not require", coding.rule)
    if (LOWRANK in manifest.requires) != any(group.factors is not None for group in manifest.groups):
        raise CorruptFileError(f"{where}: factors and the feature 'lowrank' do not fit", "U1")


def _check_codings(group: Group, where: str) -> None:
    """Check what the codings of a group ask of it, and that they go together."""
    position_coding, value_coding = POSITION_CODINGS[group.position_coding_id], VALUE_CODINGS[group.value_coding_id]
    if value_coding.class_offsets and not position_coding.holds_offsets:
        raise CorruptFileError(f"{where}: {value_coding.id} values that are not in levels", value_coding.rule)
    position_coding.check_group(group, where)
    check_table(group, where)


def _check_resized(group: Group, where: str) -> None:
    if not group.resized:
        return
    shapes = dict(zip(group.names, group.shapes, strict=True))
    if group.base_dtype is None or group.tensor_dtype.bits < 8:
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


def _check_copies(manifest: Manifest, where: str) -> None:
    """Check the further names of base tensors; whether there is what they are copies of, the base tells."""
    copies = manifest.copies or {}
    if (COPIES in manifest.requires) != bool(copies) or manifest.copies == {}:
        raise CorruptFileError(f"{where}: its copies and the feature 'copies' do not fit", "G8")
    for name in sorted(copies.keys() & {*manifest.removed, *manifest.aliases}):
        raise CorruptFileError(f"{where}: {name!r} is a copy, and removed or an alias", "G8")
    for name in (*copies, *copies.values()):
        _check_length(name, where)


def _check_slices(manifest: Manifest, where: str) -> None:
    """Check tensors made of slices; whether the base has these, it tells."""
    slices = manifest.slices or {}
    if (SLICES in manifest.requires) != bool(slices) or manifest.slices == {}:
        raise CorruptFileError(f"{where}: its slices and the feature 'slices' do not fit", "G9")
    for name in sorted(slices.keys() & {*manifest.removed, *manifest.aliases, *(manifest.copies or {})}):
        raise CorruptFileError(f"{where}: {name!r} is made of slices, and removed, an alias or a copy", "G9")
    for name, assembly in slices.items():
        _check_length(name, where)
        for piece in assembly.pieces:
            _check_length(piece.source, where)
        counts = [piece.entries for piece in assembly.pieces]
        if min(counts, default=0) < 1 or sum(counts) != _words(DTYPES["U8"], assembly.shape, where):
            raise CorruptFileError(f"{where}: {name!r} is not what its slices come to", "G9")
        if assembly.swapped and len(assembly.shape) < 2:
            raise CorruptFileError(f"{where}: {name!r} is swapped and has no two dimensions", "G9")


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
    plain = is_plain_path if PATHS in manifest.requires else is_plain_file_name
    for name in names:
        if not plain(name):
            shown = printable(name[:_SHOWN_LETTERS])
            raise CorruptFileError(f"{where}: {shown} is no file name that every system can have, and show", "L1")
    if clash(names):
        raise CorruptFileError(f"{where}: two files with one name, or a file that is a folder", "L1")
    if layout is not None and layout.folder:
        index = layout.index[0] if layout.index else None
        if not are_weights([name for name, _ in layout.files], index):
            raise CorruptFileError(f"{where}: a layout of files that are not called safetensors or their index", "L6")
    for item in manifest.files:
        if is_weights(item.name) or (is_code(item.name) and CODE not in manifest.requires):
            what = "weights, or for what says where they are" if is_weights(item.name) else "code"
            raise CorruptFileError(f"{where}: the side file {item.name!r} would be taken for {what}", "L4")


def _check_structure(manifest: Manifest, where: str) -> None:
    structure = manifest.structure
    if structure is None:
        return
    _check_hex(structure.digest, DIGEST_HEX, where)
    if structure.content is None:
        return
    if short_digest(to_canonical(structure.content)) != structure.digest:
        raise CorruptFileError(f"{where}: structure: not what its digest says", "L5")
    from_content(structure.content, where)


def _check_hex(text: str, digits: int, where: str, rule: str = "M2") -> None:
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise CorruptFileError(f"{where}: {text[:16]!r} is not {digits} hex digits", rule)

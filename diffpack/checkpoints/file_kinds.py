"""What a file is, by its first bytes: names lie, downloads end early, and pointers stand in for files."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from diffpack.checkpoints.endings import FOREIGN, foreign
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES
from diffpack.errors import AGAIN, CheckpointError, UnsupportedCheckpointError
from diffpack.format.frame import MAGIC
from diffpack.support.names import listed, printable

KINDS = {
    "safetensors": "a safetensors file",
    "torch": "a PyTorch file (of torch.save)",
    "hdf5": "an HDF5 file",
    "npz": "a NumPy archive (.npz)",
    "keras": "an archive of Keras 3 (.keras)",
}
"""What the files that are read are called."""

_HEAD_BYTES = 2048  # enough for the signature of HDF5 behind a user block, and for a line of text
_TAR_MARK = slice(257, 262)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024)
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_PICKLE_OPCODES = b"\x8a\x8c\x95}]()cX(KGUBN\x80"
_SHOWN = 60  # letters of a text
_UNPACK = "unpack it, and name the weights or the model's folder in it"
_POINTER = "`git lfs pull` in its repository fetches the file"
_STARTS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file it stands for", _POINTER),
    (b"/annex/objects/", "a pointer of git-annex, not the file it stands for", "`git annex get` fetches the file"),
    (b"# xet version", "a Xet pointer, not the file it stands for", "`git xet` or the hub's own client fetches it"),
    (b"GGUF", *FOREIGN[".gguf"]),
    *((magic, *FOREIGN[".ggml"]) for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    (MAGIC, *FOREIGN[".dpk"]),
    (b"\x93NUMPY", *FOREIGN[".npy"]),
    (b"\x1f\x8b", "packed by gzip", f"{_UNPACK} (tar xzf, or gunzip)"),
    (b"BZh", "packed by bzip2", f"{_UNPACK} (tar xjf, or bunzip2)"),
    (b"\xfd7zXZ\0", "packed by xz", f"{_UNPACK} (tar xJf, or unxz)"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", f"{_UNPACK} (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "an archive of 7-Zip", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
)
"""First bytes of files that are not read: what they are, and what to do."""
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


def kind_of(path: Path) -> str | None:
    """Which of `KINDS` a file is by its first bytes; None if they do not tell.

    Raises `CheckpointError` if it cannot be read, `UnsupportedCheckpointError`, which says what it is and what to do,
    for files that are surely others.
    """
    try:
        with path.open("rb") as file:
            head, size = file.read(_HEAD_BYTES), path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path}: empty: {AGAIN}")
    if _is_safetensors(head, size):
        return "safetensors"
    if any(head[at : at + len(_HDF5)] == _HDF5 for at in _HDF5_PLACES):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head[:2] in _PICKLES and head[2:3] in _PICKLE_OPCODES:
        return "torch"
    found = _named(head, size)
    if found is not None:
        raise UnsupportedCheckpointError(f"{path}: {found[0]}: {found[1]}")
    return None


@contextlib.contextmanager
def named_by_content(path: Path, own: str) -> Iterator[None]:
    """Where the body finds a file of the kind `own` unreadable, say what it is instead, if its first bytes tell."""
    try:
        yield
    except CheckpointError:
        refuse_other(path, own)
        raise


def refuse_other(path: Path, own: str) -> None:
    """Raise `CheckpointError` for a file whose first bytes say that it is of another kind than `own`."""
    kind = kind_of(path)
    if kind not in (None, own):
        raise UnsupportedCheckpointError(
            f"{path}: {KINDS[kind]}, where {KINDS[own]} should be: rename it, or write it anew as what it is called"
        )


def refuse_stand_in(index: Path) -> None:
    """Raise `UnsupportedCheckpointError` for what stands in for an index of shards: a pointer, a web page, zeros."""
    try:
        with index.open("rb") as file:
            head, size = file.read(_HEAD_BYTES), index.stat().st_size
    except OSError:
        return  # what reads the index tells
    found = None if head.strip()[:1] in (b"", b"{") else _named(head, size)
    if found is not None:
        raise UnsupportedCheckpointError(f"{index}: {found[0]}: {found[1]}")


def refuse_foreign(path: Path) -> None:
    """Raise `UnsupportedCheckpointError` for a file whose name is that of a tool whose files are not read."""
    found = foreign(path.name)
    if found is not None:
        raise UnsupportedCheckpointError(f"{path}: {found[0]}: {found[1]}")


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and 0 < length <= min(MOST_HEADER_BYTES, size - 8) and head[8:].lstrip(b" \n\t\r")[:1] == b"{"


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged directory may lead to anything; the reader that its ending names tells
        return None
    if any(name.endswith("/data.pkl") and name.count("/") == 1 for name in names):
        return "torch"  # TorchScript, too, which its reader names
    if "model.weights.h5" in names:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("/archive_format") and name.count("/") == 1 for name in names):
        what, advice = FOREIGN[".pt2"]
        raise UnsupportedCheckpointError(f"{path}: {what}: {advice}")
    inside = listed([printable(name) for name in names]) or "empty"
    raise UnsupportedCheckpointError(f"{path}: a zip archive ({inside}): {_UNPACK}")


def _named(head: bytes, size: int) -> tuple[str, str] | None:
    for start, what, advice in _STARTS:
        if head.startswith(start):
            return what, advice
    if head[4:8] == b"TFL3":
        return FOREIGN[".tflite"]
    if head[_TAR_MARK] == b"ustar":
        return "a tar archive", f"{_UNPACK} (tar xf)"
    if not any(head):
        return "nothing but zeros at its beginning", f"its download did not finish: {AGAIN}"
    if head.lstrip().lower().startswith(_PAGES):
        return "a web page, not the file it should be", f"{AGAIN}: the address was wrong, or asked for a login"
    text = _text(head)
    if text and head.lstrip()[:1] in (b"{", b"["):
        return f"JSON text ({text})", "name the weights, or the model's folder"
    if text and size < _HEAD_BYTES:
        return f"text ({text})", f"{AGAIN}: it is a message, or another file"
    return None


def _text(head: bytes) -> str:
    """The beginning of a text, on one line; "" for what is none."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return ""
    plain = " ".join(text.split())
    return plain[:_SHOWN] if plain.isprintable() else ""

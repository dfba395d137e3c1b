"""Names of the files a diff speaks of (rules L1, L4 and L6): plain, never a way out of a folder, and what they say.

They come from files and are not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from unicodedata import normalize

from diffpack.format import limits

_FORBIDDEN = re.compile(
    r'[/\\<>:"|?*\x00-\x1f\x7f-\x9f'  # what parts paths, what Windows has no names with, what moves a cursor
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # nobody sees them, or they turn text around
    r"\ue000-\uf8ff\ufdd0-\ufdef\ufff0-\uffff\U000e0000-\U0010ffff]"  # for private use, or no characters
)
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    port + digit for port in ("com", "lpt") for digit in "123456789\u00b9\u00b2\u00b3"
}
"""What Windows takes for a device, whatever stands behind a dot after it; the digits of ports may be raised."""

WEIGHT_ENDINGS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".hdf5", ".keras", ".npz", ".npy", ".msgpack", ".onnx",
    ".gguf", ".ggml", ".pkl", ".pickle", ".joblib", ".tflite", ".pb",
)  # fmt: skip
"""What a loader takes for weights, or for a pickle it runs."""
CODE_ENDINGS = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".cmd", ".exe", ".js")
"""What a loader or a person runs."""
FILE_ENDING, INDEX_ENDING = ".safetensors", ".safetensors.index.json"
"""How the files of a folder's layout and its index are called."""
_INDEX = re.compile(r"\.index(\.[^.]+)?\.json$")
_ADAPTER = "adapter_config.json"  # transformers loads the adapter it describes, and the base it names, first


def is_plain_file_name(name: str) -> bool:
    """Tell whether a name may be written into an output folder (rule L1).

    It is no path, not hidden, one that every system can give to a file and gives to no other one, and all of it is
    seen.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes of a file name that are no UTF-8
        return False
    if not 0 < size <= limits.FILE_NAME_BYTES or name.startswith(".") or name.endswith((".", " ")):
        return False
    return _FORBIDDEN.search(name) is None and name.partition(".")[0].rstrip(" ").lower() not in _DEVICES


def is_plain_path(path: str) -> bool:
    """Tell whether plain names joined by slashes lead to a file inside an output folder (rule L1)."""
    parts = path.split("/")
    if len(parts) > limits.PATH_PARTS or not all(map(is_plain_file_name, parts)):
        return False
    return len(path.encode()) <= limits.PATH_BYTES


def is_weights(path: str) -> bool:
    """Tell whether a loader would take a file of this name for weights, or for what says where they are (rule L4)."""
    name = path.rpartition("/")[2].casefold()
    return name.endswith(WEIGHT_ENDINGS) or _INDEX.search(name) is not None or name == _ADAPTER


def are_weights(files: Iterable[str], index: str | None) -> bool:
    """Tell whether the files of a folder's layout and its index, in no sub-folder, are called what they are (L6)."""
    named = index is None or (index.endswith(INDEX_ENDING) and "/" not in index)
    return named and all(name.endswith(FILE_ENDING) for name in files)


def is_code(path: str) -> bool:
    """Tell whether a file of this name is code (rule L4)."""
    return path.casefold().endswith(CODE_ENDINGS)


def alike(path: str) -> str:
    """What is the same for all paths that some system takes for one, by case or by how an accent is written (L1)."""
    return normalize("NFD", normalize("NFD", path).casefold())


def folders_of(path: str) -> list[str]:
    """The paths of the folders that a path leads through."""
    return [path[:at] for at, letter in enumerate(path) if letter == "/"]


def clash(paths: list[str]) -> bool:
    """Tell whether two of these are one file on some system, or one is the folder of another (rule L1)."""
    names = {alike(path) for path in paths}
    return len(names) < len(paths) or not names.isdisjoint(folder for name in names for folder in folders_of(name))

"""Names of the files a diff speaks of (rules L1, L4 and L6): plain, never a way out of a folder, and what they say.

They come from files and are not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from diffpack.format import limits

_FORBIDDEN = frozenset("/\\:\x7f") | {chr(code) for code in range(32)}

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
    """Tell whether a name may be written into an output folder (rule L1): no path, no hidden file."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # bytes of a file name that are no UTF-8
        return False
    return 0 < size <= limits.FILE_NAME_BYTES and not name.startswith(".") and not _FORBIDDEN & set(name)


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


def clash(paths: list[str]) -> bool:
    """Tell whether, ignoring case, two of these are one file, or one is the folder of another (rule L1)."""
    folded = [path.casefold() for path in paths]
    folders = {path[:at] for path in folded for at, letter in enumerate(path) if letter == "/"}
    return len(set(folded)) < len(folded) or not folders.isdisjoint(folded)

"""Hugging Face model folders: where the weights are, and the small files beside them."""

from __future__ import annotations

from pathlib import Path

from diffpack.checkpoints.base import Checkpoint
from diffpack.errors import CheckpointError
from diffpack.format.manifest_rules import is_plain_file_name

_KNOWN = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "model.weights.h5",
    "tf_model.h5",
)
"""Weights by the names the transformers and Keras libraries give them; the first that exists counts."""
_PATTERNS = (
    "*.safetensors.index.json",
    "*.safetensors",
    "*.bin.index.json",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.h5",
)

SIDE_FILE_SUFFIXES = frozenset(
    {".json", ".txt", ".model", ".jinja", ".tiktoken", ".bpe", ".spm", ".vocab", ".yaml", ".yml"}
)
"""What loading a model or its tokenizer reads. Read-me pages, code and other weights stay out."""
MOST_SIDE_FILE_BYTES = 64 << 20
"""Larger than any tokenizer in use; a file above it is reported and left out."""


def find_weights(folder: Path) -> Path:
    """The weights file or shard index of a model folder.

    Raises `CheckpointError` if there is none, or several and none of a well-known name.
    """
    for name in _KNOWN:
        if (folder / name).is_file():
            return folder / name
    for pattern in _PATTERNS:
        weights = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(weights) == 1:
            return weights[0]
        if weights:
            names = ", ".join(path.name for path in weights[:4])
            raise CheckpointError(f"{folder}: several weights files ({names}); name one of them")
    raise CheckpointError(f"{folder}: a folder without weights (model.safetensors, pytorch_model.bin, ...)")


def side_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """List the small files beside the weights by name, and say what was left out for its size."""
    files, notes = {}, []
    spelt: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        name = path.name
        wanted = path.suffix in SIDE_FILE_SUFFIXES and not name.endswith(".index.json")
        if not wanted or not path.is_file() or not is_plain_file_name(name):
            continue
        if path.stat().st_size > MOST_SIDE_FILE_BYTES:
            notes.append(f"{path}: over {MOST_SIDE_FILE_BYTES >> 20} MiB, left out of the diff")
            continue
        if (other := spelt.setdefault(name.casefold(), name)) != name:
            notes.append(f"{path}: differs from {other} in case alone, left out of the diff")
            continue
        files[name] = path
    return files, notes


def files_of(checkpoint: Checkpoint) -> list[Path]:
    """All files that a diff of a checkpoint is made of: those of the tensors, and the side files of its folder."""
    beside = {} if checkpoint.folder is None else side_files(checkpoint.folder)[0]
    return [*checkpoint.files, *beside.values()]

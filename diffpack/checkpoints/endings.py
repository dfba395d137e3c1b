"""How files of weights are called: the endings that are read, those that are written, and other tools' own."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import PurePath

from diffpack.format.file_names import CODE_ENDINGS, WEIGHT_ENDINGS

TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".th", ".pth.tar", ".pt.tar")
"""Files of `torch.save`, read and written."""
PICKLE_SUFFIXES = (".pkl", ".model")
"""Files of `torch.save`, too, or other pickles: read where they hold tensors, never written."""
HDF5_SUFFIXES = (".h5", ".hdf5")
NPZ_SUFFIX = ".npz"
KERAS_SUFFIX = ".keras"
WRITTEN_SUFFIXES = (".safetensors", *TORCH_SUFFIXES, *HDF5_SUFFIXES, NPZ_SUFFIX)
"""Endings of outputs that are one file."""
WEIGHT_SUFFIXES = (*WRITTEN_SUFFIXES, KERAS_SUFFIX, *PICKLE_SUFFIXES)
"""Endings of files that are read."""

_INDEX = re.compile(r"\.index(\.[^.]+)?\.json$", re.IGNORECASE)
_LAYOUTS = {
    ".safetensors": "safetensors",
    **dict.fromkeys((*TORCH_SUFFIXES, *PICKLE_SUFFIXES), "torch"),
    **dict.fromkeys(HDF5_SUFFIXES, "hdf5"),
    NPZ_SUFFIX: "npz",
    KERAS_SUFFIX: "keras",
}

_VIA_TORCH = "load it with the tool that wrote it, and save its weights as safetensors or with torch.save"
_TENSORFLOW = "a checkpoint of TensorFlow", "load it there and save it as .h5 or .keras (model.save_weights)"
FOREIGN = {
    ".gguf": ("a GGUF file of llama.cpp", "name the safetensors or PyTorch weights it was converted from"),
    ".ggml": ("a GGML file of llama.cpp", "name the safetensors or PyTorch weights it was converted from"),
    ".msgpack": (
        "a checkpoint of Flax",
        "transformers before 5 reads it (from_pretrained(..., from_flax=True)); save_pretrained writes safetensors",
    ),
    ".onnx": ("a graph of ONNX", "name the checkpoint it was exported from"),
    ".tflite": ("a model of TensorFlow Lite", "name the model it was converted from"),
    ".pb": ("a graph of TensorFlow", "load it there and save its weights as .h5 or .keras"),
    ".mlmodel": ("a model of Core ML", "name the model it was converted from"),
    ".npy": ("one NumPy array, which has no name", "numpy.savez('x.npz', NAME=array) gives it one"),
    ".joblib": ("a pickle of joblib, which only running it reads", _VIA_TORCH),
    ".pickle": ("a pickle, which only running it reads", _VIA_TORCH),
    ".pdparams": ("weights of PaddlePaddle", _VIA_TORCH),
    ".distcp": (
        "a part of a distributed checkpoint of torch",
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER x.pt makes one file of it",
    ),
    ".pt2": (
        "a program of torch.export",
        "save the state_dict of the program, or of the module it was made from, with torch.save",
    ),
    ".dpk": ("a diff, not a checkpoint", "write its result with `diffpack apply` first"),
}
"""Endings of files that are not read: what they are, and what to do."""
_DEEPSPEED = "zero_to_fp32.py"
"""The script that DeepSpeed puts beside a checkpoint, whose weights lie in pieces in folders."""
_FSDP_PART = re.compile(r".*(_fsdp_|[_-]rank[_-]?)\d+\.(bin|pt|pth|ckpt)$")
"""How the parts are called that each process of FSDP saves of its own: pytorch_model_fsdp_0.bin."""
FSDP = "a part that one process of FSDP saved", "save the whole state, with StateDictType.FULL_STATE_DICT"
_ORBAX = frozenset({"_CHECKPOINT_METADATA", "manifest.ocdbt"})
"""Files in the folder of a checkpoint of Orbax."""
_TENSORFLOW_NAME = re.compile(r"(.+\.(index|meta|data-\d{5}-of-\d{5})|checkpoint)$")

_OTHER_FILES = (
    ".json", ".jsonl", ".txt", ".md", ".csv", ".log", ".yaml", ".yml", ".toml", ".zip", ".tar", ".gz", ".tgz", ".bz2",
    ".xz", ".zst", ".7z", ".rar", ".index", ".meta", ".params", ".nemo", ".caffemodel", ".parquet", ".arrow",
)  # fmt: skip
_FILE_ENDINGS = frozenset({*WEIGHT_ENDINGS, *CODE_ENDINGS, *WEIGHT_SUFFIXES, *FOREIGN, *_OTHER_FILES})
"""Endings that a file has, and no folder of a model."""
_CLOSE = 0.82
"""How alike (`difflib`) an ending is to one of a file's that is taken for a slip: `.safetensor`, `.hd5`, not `.5`."""


def is_index(name: str) -> bool:
    """Tell whether a file is called as an index of shards, of a variant (`.index.fp16.json`) or not."""
    return _INDEX.search(name) is not None


def indexed(name: str) -> str:
    """What an index is the index of: its name without `.index.json` or `.index.VARIANT.json`; others stay."""
    return _INDEX.sub("", name)


def layout_of(name: str) -> str | None:
    """The layout that a file's ending promises, or None."""
    name = name.casefold()
    return next((layout for ending, layout in _LAYOUTS.items() if name.endswith(ending)), None)


def weights_suffix(name: str) -> str:
    """The part of a weights file's name that tells its layout, an index's ending included; "" if none does."""
    stem = indexed(name)
    endings = [ending for ending in WEIGHT_SUFFIXES if stem.casefold().endswith(ending)]
    return name[len(stem) - max(map(len, endings)) :] if endings else ""


def foreign(name: str) -> tuple[str, str] | None:
    """What a file of a tool whose files are not read is, and what to do; None if its name does not tell."""
    if _TENSORFLOW_NAME.fullmatch(name):
        return _TENSORFLOW
    if name in _ORBAX:
        return "a checkpoint of Orbax", "restore it, and save its dict as safetensors (safetensors.flax.save_file)"
    if _FSDP_PART.fullmatch(name):
        return FSDP
    if name == _DEEPSPEED:
        return "the script that joins a checkpoint of DeepSpeed", f"python {_DEEPSPEED} . pytorch_model.bin runs it"
    return FOREIGN.get(PurePath(name).suffix.casefold())


def ends_as_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path was written as a folder's, with a slash at its end."""
    return os.fspath(path).endswith(("/", os.sep))


def seems_a_file(path: str | os.PathLike[str]) -> str:
    """The ending of a file that an output has, or seems to mean; "" for names of folders, which may have dots, too."""
    suffix = PurePath(path).suffix.casefold()
    if suffix in _FILE_ENDINGS:
        return suffix
    return next(iter(difflib.get_close_matches(suffix, sorted(_FILE_ENDINGS), 1, _CLOSE)), "") if suffix else ""

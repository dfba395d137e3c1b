"""A file is what its first bytes say: read as that, or refused by its name and with what to do."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.endings import seems_a_file, weights_suffix
from diffpack.errors import CheckpointError, TruncatedFileError, UnsupportedCheckpointError
from tests.tools.models import bits, write_safetensors, write_shards

torch = pytest.importorskip("torch")
h5py = pytest.importorskip("h5py")

WEIGHTS = {"w": np.arange(6, dtype=np.float32), "b": np.ones(2, np.float32)}
KINDS = {"safetensors": ".safetensors", "PyTorch": ".pt", "HDF5": ".h5", "NumPy": ".npz", "Keras": ".keras"}


def written(kind: str, path: Path) -> Path:
    """A file of a kind, as its own library writes it."""
    if kind == "safetensors":
        write_safetensors(path, WEIGHTS)
    elif kind == "PyTorch":
        torch.save({name: torch.from_numpy(array) for name, array in WEIGHTS.items()}, path)
    elif kind == "NumPy":
        with path.open("wb") as file:
            np.savez(file, **WEIGHTS)
    else:
        inside = io.BytesIO()
        with h5py.File(inside, "w") as file:
            for name, array in WEIGHTS.items():
                file.create_dataset(name, data=array)
        if kind == "HDF5":
            path.write_bytes(inside.getvalue())
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("metadata.json", "{}")
                archive.writestr("config.json", "{}")
                archive.writestr("model.weights.h5", inside.getvalue())
    return path


def contents(path: Path) -> dict[str, bytes]:
    with diffpack.open_checkpoint(path) as opened:
        return {name: opened.words(name).tobytes() for name in sorted(opened.tensors)}


EXPECTED = {name: WEIGHTS[name].tobytes() for name in sorted(WEIGHTS)}


@pytest.mark.parametrize("ending", [*KINDS.values(), ".bin", ".th", ".pth.tar", ".ckpt", ".hdf5", ".pkl", ".model", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_under_every_ending_and_a_lie_is_noted(tmp_path: Path, kind: str, ending: str) -> None:
    path = written(kind, tmp_path / f"x{ending}")
    assert contents(path) == EXPECTED
    notes = diffpack.open_checkpoint(path).notes
    own = ending == KINDS[kind] or (kind == "HDF5" and ending == ".hdf5")
    own = own or (kind == "PyTorch" and ending in (".bin", ".th", ".pth.tar", ".ckpt", ".pkl", ".model"))
    assert bool(notes) != own
    assert own or ("not called so" in notes[0] and kind in notes[0])
    prints = {diffpack.fingerprint(path), diffpack.fingerprint(WEIGHTS)}
    assert len(prints) == 1


def test_a_legacy_file_of_torch_is_read_under_a_foreign_ending(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "x.safetensors", _use_new_zipfile_serialization=False)
    assert list(diffpack.open_checkpoint(tmp_path / "x.safetensors").tensors) == ["w"]


def test_hdf5_behind_a_user_block_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.bin", "w", userblock_size=512) as file:
        file.create_dataset("w", data=WEIGHTS["w"])
    assert contents(tmp_path / "x.bin") == {"w": EXPECTED["w"]}


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
FOREIGN = {
    "a Git LFS pointer.*git lfs pull": POINTER,
    "git-annex.*git annex get": b"/annex/objects/SHA256E-s1--0\n",
    "GGUF": b"GGUF" + (3).to_bytes(4, "little") + bytes(64),
    "GGML": b"tjgg" + bytes(64),
    "empty.*again": b"",
    "gzip.*gunzip": gzip.compress(b"weights" * 99),
    "xz": b"\xfd7zXZ\0" + bytes(9),
    "tar archive.*tar xf": tar(),
    r"zip archive \(pytorch_model\.bin\).*unpack": zipped("pytorch_model.bin"),
    "one NumPy array": b"\x93NUMPY\x01\0" + bytes(80),
    "TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(64),
    "a web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "web page": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    r"JSON text \(\{.*config": b'{"config": 1}' + b" " * 5000,
    r"text \(Entry not found\).*again": b"Entry not found",
    "nothing but zeros.*did not finish": bytes(5000),
    "a diff, not a checkpoint.*apply": b"\x89DPK\r\n\x1a\n" + bytes(99),
}


@pytest.mark.parametrize("ending", [".safetensors", ".bin", ".h5", ".npz", ".keras", ".foo"])
@pytest.mark.parametrize("said", FOREIGN)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path: Path, said: str, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(FOREIGN[said])
    with pytest.raises(CheckpointError, match=said):
        diffpack.open_checkpoint(path)


def test_torchscript_is_a_program(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of what people have files of
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.bin")
    with pytest.raises(UnsupportedCheckpointError, match=r"TorchScript.*state_dict"):
        diffpack.open_checkpoint(tmp_path / "script.bin")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flax_model.msgpack", "Flax.*save_pretrained"),
        ("model.onnx", "ONNX"),
        ("bert_model.ckpt.index", "TensorFlow"),
        ("bert_model.ckpt.data-00000-of-00001", "TensorFlow"),
        ("checkpoint", "TensorFlow"),
        ("x.tflite", "Lite"),
        ("x.joblib", "joblib"),
        ("saved_model.pb", "TensorFlow"),
        ("__0_0.distcp", "dcp_to_torch"),
        ("zero_to_fp32.py", "DeepSpeed"),
    ],
)
def test_other_tools_files_are_named_alone_and_in_a_folder(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x01 anything \xff")
    with pytest.raises(UnsupportedCheckpointError, match=said):
        diffpack.open_checkpoint(tmp_path / name)
    with pytest.raises(UnsupportedCheckpointError, match=f"{name} is .*{said}"):
        diffpack.open_checkpoint(tmp_path)


def test_a_shard_that_is_something_else_is_called_what_it_is(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a.safetensors": {"w": WEIGHTS["w"]}, "b.safetensors": {"b": WEIGHTS["b"]}})
    (tmp_path / "b.safetensors").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=r"b\.safetensors: a Git LFS pointer"):
        diffpack.open_checkpoint(index)
    written("PyTorch", tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors: a PyTorch file.*where a safetensors file should be"):
        diffpack.open_checkpoint(index)
    write_safetensors(tmp_path / "x.bin", WEIGHTS)
    (tmp_path / "x.bin.index.json").write_text(json.dumps({"weight_map": {"w": "x.bin", "b": "x.bin"}}))
    with pytest.raises(CheckpointError, match=r"x\.bin: a safetensors file, where a PyTorch file"):
        diffpack.open_checkpoint(tmp_path / "x.bin.index.json")


def test_shards_of_tensorflow_are_named(tmp_path: Path) -> None:
    written("HDF5", tmp_path / "tf_model-00001-of-00001.h5")
    index = tmp_path / "tf_model.h5.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "tf_model-00001-of-00001.h5"}}))
    with pytest.raises(UnsupportedCheckpointError, match="HDF5 files of TensorFlow in shards"):
        diffpack.open_checkpoint(index)


def test_what_is_given_as_a_diff_and_is_none_is_called_what_it_is(tmp_path: Path) -> None:
    for kind in KINDS:
        with pytest.raises(TruncatedFileError, match=f"not a diff but .*{kind}"):
            diffpack.open(written(kind, tmp_path / "x.dpk"))
    (tmp_path / "x.dpk").write_bytes(POINTER)
    with pytest.raises(TruncatedFileError, match="Git LFS pointer"):
        diffpack.open(tmp_path / "x.dpk")


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_under_a_false_name_is_given_back_under_a_true_one(tmp_path: Path, kind: str) -> None:
    """A folder is laid out as its base is, but no file is called what it is not."""
    folder = tmp_path / "base"
    folder.mkdir()
    written(kind, folder / ("pytorch_model.bin" if kind != "PyTorch" else "model.safetensors"))
    tuned = {**WEIGHTS, "b": WEIGHTS["b"] * 3}
    diff = diffpack.extract(folder, tuned)
    diffpack.apply(folder, diff, tmp_path / "out")
    assert bits(diffpack.load(tmp_path / "out", diffpack.extract(tuned, tuned))) == bits(tuned)
    assert diffpack.open_checkpoint(tmp_path / "out").notes == []


def test_names_of_files_and_of_folders_are_told_apart() -> None:
    files = ["x.safetensor", "x.safetensors.index.json", "x.keras", "x.tflite", "x.pickle", "x.hd5", "x.ckp", "x.zip"]
    files += ["x.savetensors", "x.SAFETENSORS", "x.pt2", "x.onx", "x.tar.gz", "x.py", "x.json", "x.dpk", "x.model"]
    assert [name for name in files if not seems_a_file(name)] == []
    folders = ["all-MiniLM-L6-v2.1", "bert.finetuned", "llama-3.2-1B", "whisper.en", "x.base", "run.2024-01-01", "out"]
    folders += ["gpt2.ft", "model.v2", "x.large", "checkpoint-1.5", "qwen2.5", "a.b/c", "x.lora-r16", ".cache", "x."]
    assert [name for name in folders if seems_a_file(name)] == []


def test_the_part_of_a_name_that_tells_the_layout() -> None:
    names = {"m.pth.tar": ".pth.tar", "m.safetensors.index.fp16.json": ".safetensors.index.fp16.json", "m.v1": ""}
    names |= {"m.bin.index.json": ".bin.index.json", "m.NPZ": ".NPZ", "m.tar": "", "m": ""}
    assert {name: weights_suffix(name) for name in names} == names


def test_a_copy_without_an_ending_is_read(tmp_path: Path) -> None:
    """As a hub's cache keeps its files, by their digests."""
    shutil.copy(written("safetensors", tmp_path / "m.safetensors"), tmp_path / ("0" * 64))
    assert contents(tmp_path / ("0" * 64)) == EXPECTED

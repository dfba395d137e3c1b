"""What is written is readable, complete, and in nobody's way."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from conftest import model, tune, write_safetensors

import diffpack
from diffpack.errors import CheckpointError, CorruptFileError, DiffpackError, UsageError
from diffpack.support.atomic import atomic_file, atomic_folder

BASE, TUNED = {"w": np.zeros(64, np.float32)}, {"w": np.ones(64, np.float32)}


@pytest.mark.parametrize(
    "wrong", [{"metadata": {"epoch": 3}}, {"base_name": 5}, {"base_name": "\ud800"}, {"metadata": {"a": "\udcff"}}]
)
def test_what_the_reader_would_refuse_is_not_written(wrong, tmp_path):
    path = tmp_path / "d.dpk"
    before = diffpack.extract(BASE, TUNED, path).nbytes
    for output in (path, None):
        with pytest.raises(UsageError, match=r"does not fit the format|no valid text"):
            diffpack.extract(BASE, TUNED, output, force=True, **wrong)
    assert os.listdir(tmp_path) == ["d.dpk"]
    assert diffpack.open(path).nbytes == before


@pytest.mark.parametrize("name", ["x" * 65_536, "\ud800"])
def test_names_no_diff_can_hold_are_refused_at_the_door(name):
    tensors = {name: np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError, match="a tensor's name"):
        diffpack.fingerprint(tensors)
    with pytest.raises(CheckpointError, match="a tensor's name"):
        diffpack.extract({}, tensors)


def test_names_and_shapes_at_the_limit_are_kept():
    tuned = {"x" * 65_535: np.zeros((2,) + (1,) * 63, np.float32)}
    assert diffpack.load({}, diffpack.extract({}, tuned))["x" * 65_535].shape == (2,) + (1,) * 63


@pytest.mark.parametrize("shape", [[1] * 65, [1] * 300, [0, 1 << 63], [0, 1 << 64]])
def test_shapes_no_diff_can_hold_are_refused_at_the_door(shape, tmp_path):
    empty = 0 in shape
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0 if empty else 4]}}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * (0 if empty else 4))
    with pytest.raises(CheckpointError, match="more than a diff can hold"):
        diffpack.fingerprint(path)


def test_file_names_that_do_not_fit_every_system_stay_out_of_the_diff(tmp_path):
    for name, tensors in (("base", model()), ("tuned", tune(model()))):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "m:1.safetensors", tensors)
        for at, side in enumerate(("Vocab.txt", "vocab.txt", "config.json")):
            (tmp_path / name / side).write_text(f"{name} {at}")
        (tmp_path / name / os.fsdecode(b"caf\xe9.json")).write_text("{}")
    with diffpack.open_checkpoint(tmp_path / "tuned") as tuned:
        diff = diffpack.extract(tmp_path / "base", tuned, tmp_path / "d.dpk")
        assert any("differs from Vocab.txt in case alone" in note for note in tuned.notes)
        assert any("do not fit every system" in note for note in tuned.notes)
    assert diff.manifest.layout is None
    assert sorted(item.name for item in diff.manifest.files) == ["Vocab.txt", "config.json"]


def test_an_index_that_names_no_tensor_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="names no tensor"):
        diffpack.open_checkpoint(tmp_path)


def test_no_input_is_overwritten(tmp_path):
    for name, tensors in (("base", BASE), ("tuned", TUNED)):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "model.safetensors", tensors)
        (tmp_path / name / "config.json").write_text("{}")
    weights = write_safetensors(tmp_path / "weights.safetensors", TUNED)
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    for output in (base / "config.json", tuned / "config.json", tuned / "model.safetensors", weights):
        before = output.read_bytes()
        with pytest.raises(UsageError, match="also an input"):
            diffpack.extract(base, tuned, output, force=True, budget="1MB", importance=weights)
        assert output.read_bytes() == before
    out = tmp_path / "out"
    out.mkdir()
    diff = diffpack.extract(base, tuned, out / "d.dpk")
    with pytest.raises(UsageError, match="also an input"):
        diffpack.apply(base, diff, out, force=True)
    assert (out / "d.dpk").is_file()


def test_outputs_that_are_no_files_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="a folder; name the file"):
        diffpack.extract(BASE, TUNED, tmp_path / "folder", force=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        diffpack.extract(BASE, TUNED, tmp_path / "pipe", force=True)
    with pytest.raises(DiffpackError, match="no regular file"):
        diffpack.open(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists already"):
        diffpack.extract(BASE, TUNED, tmp_path / "link")
    diffpack.extract(BASE, TUNED, tmp_path / "link", force=True)
    assert not (tmp_path / "link").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_a_name_as_long_as_the_system_takes_is_fine(tmp_path):
    path = tmp_path / ("\N{GRINNING FACE}" * 62 + ".dpk")
    diffpack.extract(BASE, TUNED, path)
    assert diffpack.open(path).exact
    with atomic_folder(tmp_path / ("\N{GRINNING FACE}" * 62)) as folder, atomic_file(folder / "x") as file:
        file.write(b"1")


def test_a_closed_diff_reads_no_other_file(tmp_path):
    path = tmp_path / "d.dpk"
    diff = diffpack.extract(BASE, TUNED, path)
    diff.close()
    other = os.open(write_safetensors(tmp_path / "m.safetensors", BASE), os.O_RDONLY)
    try:
        with pytest.raises(DiffpackError, match="is closed"):
            diff["w"].positions  # noqa: B018 - reading is what is tested
        with pytest.raises(DiffpackError, match="is closed"):
            diff.save(tmp_path / "copy.dpk")
    finally:
        os.close(other)
    assert sorted(os.listdir(tmp_path)) == ["d.dpk", "m.safetensors"]


def test_a_damaged_diff_is_not_saved(tmp_path):
    path = tmp_path / "d.dpk"
    diffpack.extract(model(), tune(model()), path)
    diff = diffpack.open(path)
    raw = bytearray(path.read_bytes())
    raw[diff.chunks[0].offset] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptFileError):
        diffpack.open(path).save(tmp_path / "copy.dpk")
    assert os.listdir(tmp_path) == ["d.dpk"]


def test_safetensors_are_written_where_there_is_no_pwrite(tmp_path, monkeypatch):
    base = write_safetensors(tmp_path / "base.safetensors", model())
    tuned = write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    diff = diffpack.extract(base, tuned)
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.delattr(os, "pread")
    diffpack.apply(base, diff, tmp_path / "out.safetensors", threads=4)
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()


def test_a_tensor_with_an_empty_name_is_one_as_any_other():
    base = {"": np.arange(6, dtype=np.float32), "w": np.zeros(6, np.float32)}
    tuned = {"": np.arange(6, dtype=np.float32) + np.float32(1), "w": np.ones(6, np.float32)}
    diff = diffpack.extract(base, tuned)
    assert diff[""].kind == "changed"
    result = diffpack.load(base, diff)
    assert all(np.array_equal(result[name], tuned[name]) for name in tuned)
    with pytest.raises(diffpack.errors.WrongBaseError, match="w is missing"):
        diffpack.load({"": base[""]}, diff)


def test_frameworks_are_those_there_are():
    with pytest.raises(UsageError, match="numpy or torch"):
        diffpack.load(BASE, diffpack.extract(BASE, TUNED), framework="jax")

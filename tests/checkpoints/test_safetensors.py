"""Checkpoints that are damaged, hostile or more than a diff can hold are refused; odd ones come back."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest

import diffpack
from diffpack.errors import CheckpointError, CorruptFileError, DiffpackError, UnsupportedCheckpointError
from tests.tools.models import model, tune, write_safetensors

HEADERS = {
    "not json": b"{nope",
    "not an object": b"[]",
    "hole": b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
    "overlap": b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    b'"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
    "wrong size": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,2]}}',
    "negative": b'{"a":{"dtype":"U8","shape":[-1,-2],"data_offsets":[0,2]}}',
    "too short": b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
    "too long": b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}',
    "deep": b'{"a":' + b"[" * 100_000,
    "a tensor twice": b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    b'"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
    "a tensor twice, spelt otherwise": b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    b'"\\u0061":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
    "a member twice": b'{"a":{"dtype":"U8","dtype":"I8","shape":[2],"data_offsets":[0,2]}}',
    "metadata twice": b'{"__metadata__":{},"__metadata__":{},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
    "a note twice": b'{"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
    "a number of more digits than are read": b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"\\u006d":'
    + b"9" * 5000
    + b"}}",
    "no number": b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"more":NaN}}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_damaged_safetensors_headers_are_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        diffpack.fingerprint(path)


@pytest.mark.parametrize("notes", [b"null", b"{}", b'{"dtype":"the word \\"shape\\""}'])
def test_odd_metadata_is_read_and_comes_back(tmp_path, notes):
    for name, data in (("base", b"\1\2"), ("tuned", b"\1\3")):
        header = b'{"__metadata__":' + notes + b',"dtype":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
        (tmp_path / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    diff = diffpack.extract(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors")
    diffpack.apply(tmp_path / "base.safetensors", diff, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "tuned.safetensors").read_bytes()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "short.safetensors").write_bytes(b"\x08")
    (tmp_path / "huge.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    (tmp_path / "x.txt").write_text("hello")
    for name in ("empty", "short.safetensors", "huge.safetensors", "x.txt", "missing.safetensors"):
        with pytest.raises(CheckpointError, match=name):
            diffpack.fingerprint(tmp_path / name)
    with pytest.raises(UnsupportedCheckpointError, match="'w'"):
        diffpack.fingerprint({"w": np.array(["text"])})
    with pytest.raises(DiffpackError):
        diffpack.open(tmp_path / "missing.dpk")
    with pytest.raises(CorruptFileError):
        diffpack.open(tmp_path / "x.txt")


def test_hostile_tensor_names_are_only_names(tmp_path):
    base = {"../../etc/passwd": np.zeros(3, np.float32), "\x1b[2J": np.zeros(2, np.float32), "": np.ones(1)}
    tuned = {name: array + 1 for name, array in base.items()}
    base_path = write_safetensors(tmp_path / "b.safetensors", base)
    tuned_path = write_safetensors(tmp_path / "t.safetensors", tuned)
    diffpack.apply(base_path, diffpack.extract(base_path, tuned_path), tmp_path / "o.safetensors")
    assert (tmp_path / "o.safetensors").read_bytes() == tuned_path.read_bytes()


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


def test_an_index_that_names_no_tensor_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="names no tensor"):
        diffpack.open_checkpoint(tmp_path)


def test_safetensors_are_written_where_there_is_no_pwrite(tmp_path, monkeypatch):
    base = write_safetensors(tmp_path / "base.safetensors", model())
    tuned = write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    diff = diffpack.extract(base, tuned)
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.delattr(os, "pread")
    diffpack.apply(base, diff, tmp_path / "out.safetensors", threads=4)
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()

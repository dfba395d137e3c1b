"""What bad input gets: a clear error of the right kind, and no output."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from conftest import model, tune, write_safetensors

import diffpack
from diffpack.errors import (
    CheckpointError,
    CorruptFileError,
    DiffpackError,
    UnsupportedCheckpointError,
    UnsupportedFormatError,
    UsageError,
    WrongBaseError,
)
from diffpack.format import frame


def small_diff(**options):
    base = {"a": np.arange(40, dtype=np.float32), "ids": np.arange(3)}
    tuned = {"a": base["a"].copy(), "ids": base["ids"], "new": np.ones(3, np.float16)}
    tuned["a"][::7] += 0.25
    diff = diffpack.extract(base, tuned, **options)
    data = b"".join(diff._source.read(at, 1) for at in range(diff.nbytes))
    return base, data


def read_all(data):
    with diffpack.open(data) as diff:
        diffpack.verify(diff)


@pytest.mark.parametrize("options", [{}, {"profile": "portable"}, {"values": "int8"}])
def test_every_changed_byte_is_noticed(options):
    _, data = small_diff(**options)
    read_all(data)
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= flip
            with pytest.raises((CorruptFileError, UnsupportedFormatError)):
                read_all(bytes(damaged))


def test_every_truncation_is_noticed():
    _, data = small_diff()
    for length in range(len(data)):
        with pytest.raises(CorruptFileError):
            read_all(data[:length])
    with pytest.raises(CorruptFileError):
        read_all(data + b"\0")


def test_an_unknown_major_version_is_refused_and_a_minor_one_read():
    _, data = small_diff()
    with pytest.raises(UnsupportedFormatError, match="F2"):
        read_all(data[:8] + struct.pack("<H", 2) + data[10:])
    newer = bytearray(data)
    newer[10] = 7
    trailer = frame.parse_trailer(bytes(newer[-frame.TRAILER_BYTES :]), len(newer), "x")
    manifest = bytes(newer[trailer.offset : trailer.offset + trailer.stored])
    start = len(newer) - frame.TRAILER_BYTES
    digest = frame.blake3(bytes(newer[:16]) + manifest + bytes(newer[start : start + 32])).digest()
    newer[start + 32 : start + 64] = digest
    read_all(bytes(newer))


@pytest.mark.parametrize("verify", [True, False])
def test_a_wrong_base_is_refused_and_its_tensors_named(tmp_path, verify):
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned)
    other = {name: array.copy() for name, array in base.items()}
    other["embed"].reshape(-1).view(np.uint32)[5] ^= 1
    with pytest.raises(WrongBaseError, match="embed") as caught:
        diffpack.apply(other, diff, tmp_path / "out.safetensors", verify=verify)
    assert caught.value.tensors == ("embed",)
    assert caught.value.exit_code == 10
    assert not list(tmp_path.iterdir())


def test_a_base_that_differs_where_the_diff_does_not_touch_it_is_refused(tmp_path):
    base, tuned = model(), tune(model())
    diff = diffpack.extract(base, tuned)
    other = base | {"ids": base["ids"] + 1}
    with pytest.raises(WrongBaseError, match="does not touch"):
        diffpack.apply(other, diff, tmp_path / "out.safetensors")


def test_a_diff_is_not_applied_twice(tmp_path):
    base, tuned = model(), tune(model(), 0.2)
    with pytest.raises(WrongBaseError):
        diffpack.apply(tuned, diffpack.extract(base, tuned), tmp_path / "out.safetensors")


@pytest.mark.parametrize("change", ["dtype", "shape", "missing"])
def test_another_dtype_or_shape_is_refused_by_name(change):
    base, tuned = model(), tune(model(), 0.2)
    diff = diffpack.extract(base, tuned)
    other = dict(base)
    if change == "dtype":
        other["embed"] = base["embed"].astype(np.float64)
    elif change == "shape":
        other["embed"] = base["embed"].reshape(-1)
    else:
        del other["embed"]
    with pytest.raises(WrongBaseError, match="embed"):
        diffpack.load(other, diff)


def test_an_output_that_is_an_input_is_refused(tmp_path, pair):
    base, tuned = pair
    before = base.read_bytes()
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk")
    for output in (base, tmp_path / "d.dpk"):
        with pytest.raises(UsageError, match="input"):
            diffpack.apply(base, tmp_path / "d.dpk", output, force=True)
    with pytest.raises(UsageError, match="input"):
        diffpack.extract(base, tuned, tuned, force=True)
    link = tmp_path / "link.safetensors"
    link.symlink_to(base)
    with pytest.raises(UsageError, match="input"):
        diffpack.apply(base, diff, link, force=True)
    assert base.read_bytes() == before


def test_an_output_without_a_layout_is_refused(tmp_path, pair):
    base, tuned = pair
    with pytest.raises(UsageError, match=r"out\.onnx"):
        diffpack.apply(base, diffpack.extract(base, tuned), tmp_path / "out.onnx")
    (tmp_path / "folder").mkdir()
    base.rename(tmp_path / "folder" / "model.safetensors")
    with pytest.raises(UsageError, match=r"out\.onnx"):
        diffpack.apply(tmp_path / "folder", diffpack.extract(tmp_path / "folder", tuned), tmp_path / "out.onnx")


def test_a_failure_while_writing_leaves_nothing(tmp_path, pair, monkeypatch):
    base, tuned = pair
    diff = diffpack.extract(base, tuned)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full_disk)
    with pytest.raises(OSError, match="No space left"):
        diffpack.apply(base, diff, tmp_path / "out.safetensors")
    with pytest.raises(OSError, match="No space left"):
        diffpack.apply(base, diff, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_interrupted_extract_leaves_nothing(tmp_path, pair):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diffpack.extract(*pair, tmp_path / "d.dpk", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.safetensors", "tuned.safetensors"]


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


def test_renaming_two_tensors_to_one_name_is_refused():
    arrays = {"a.w": np.zeros(1, np.float32), "w": np.zeros(1, np.float32)}
    with pytest.raises(UsageError, match="'w'"):
        diffpack.extract(arrays, arrays, rename=[("a.", "")])

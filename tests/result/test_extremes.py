"""Names, shapes and headers at the edge of what the format or other readers take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import safetensors_writer
from diffpack.checkpoints.safetensors_header import MOST_HEADER_BYTES, make_header
from diffpack.checkpoints.safetensors_writer import SafetensorsWriter
from diffpack.errors import CheckpointError
from diffpack.tensors.dtypes import DTYPES, fits_array, numpy_dtype
from diffpack.tensors.info import TensorInfo
from tests.tools.models import Arrays, bits, model, tune, write_safetensors, write_shards

RNG = np.random.default_rng(0)
NAMELESS: Arrays = {
    "": RNG.standard_normal((8, 8)).astype(np.float32), "w": RNG.standard_normal((4, 4)).astype(np.float32),
}  # fmt: skip
TUNED: dict[str, Arrays] = {
    "changed": {"": NAMELESS[""] * 2, "w": NAMELESS["w"]},
    "prefixed": {"m.": NAMELESS[""] * 2, "m.w": NAMELESS["w"]},
    "removed": {"w": NAMELESS["w"] * 2},
    "tied": {**NAMELESS, "x": NAMELESS[""]},
    "grown": {"": np.vstack([NAMELESS[""], NAMELESS[""]]), "w": NAMELESS["w"]},
    "rounded": {"": NAMELESS[""].astype(np.float16), "w": NAMELESS["w"]},
}


@pytest.mark.parametrize("profile", ["compact", "smallest"])
@pytest.mark.parametrize("what", TUNED)
def test_a_tensor_without_a_name_goes_there_and_back(tmp_path, what, profile):
    base = write_safetensors(tmp_path / "base.safetensors", NAMELESS)
    tuned = write_safetensors(tmp_path / "tuned.safetensors", TUNED[what])
    diff = diffpack.extract(base, tuned, profile=profile, allow_removed=what == "removed")
    assert bits(diffpack.load(base, diff)) == bits(TUNED[what])
    undo = diffpack.invert(diff, base=base)
    assert bits(diffpack.load(tuned, undo)) == bits(NAMELESS)
    nothing = diffpack.compose([diff, undo], base=base)
    assert bits(diffpack.load(base, nothing)) == bits(NAMELESS)
    again = diffpack.compose([undo, diff], base=tuned)
    assert bits(diffpack.load(tuned, again)) == bits(TUNED[what])
    assert bits(diffpack.load(base, diffpack.rebase(diff, base, base=base).diff)) == bits(TUNED[what])
    for name in ("o.safetensors", "o.bin", "o"):
        diffpack.apply(base, diff, tmp_path / name)
        assert diffpack.fingerprint(tmp_path / name) == diffpack.fingerprint(tuned)


def test_an_error_about_it_can_be_read(tmp_path):
    diff = diffpack.extract(NAMELESS, TUNED["removed"], allow_removed=True)
    with pytest.raises(diffpack.errors.BaseNeededError, match="removed ''"):
        diffpack.invert(diff)


def empty_tensor(path: Path, info: TensorInfo) -> Path:
    raw = make_header({"z": info, "w": TensorInfo(DTYPES["F32"], (1,))}, {})
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0\0\x80\x3f")
    return path


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_shape_that_no_array_can_have_is_refused_by_name_and_written_to_files(tmp_path, framework):
    base = write_safetensors(tmp_path / "base.safetensors", {"w": np.zeros(1, np.float32)})
    tuned = empty_tensor(tmp_path / "tuned.safetensors", TensorInfo(DTYPES["F32"], (0, 1 << 40, 1 << 40, 3)))
    with diffpack.extract(base, tuned, tmp_path / "d.dpk") as diff:
        with pytest.raises(CheckpointError, match=r"d\.dpk: z: no array can have its shape; apply writes it to a file"):
            diffpack.load(base, diff, framework=framework)
        with pytest.raises(CheckpointError, match="z: no array can have its shape"):
            diff["z"].to_dense()
        diffpack.apply(base, diff, tmp_path / "o.safetensors")
        assert (tmp_path / "o.safetensors").read_bytes() == tuned.read_bytes()
        with pytest.raises(CheckpointError, match="PyTorch cannot hold"):
            diffpack.apply(base, diff, tmp_path / "o.bin")
        assert not (tmp_path / "o.bin").exists()
        assert diffpack.verify(diff, base)


@pytest.mark.parametrize("dtype", ["U8", "F16", "F32", "F64"])
def test_an_array_is_said_to_have_a_shape_just_where_numpy_has_it(dtype):
    kind = numpy_dtype(DTYPES[dtype])
    assert kind is not None
    most = (1 << 63) // kind.itemsize
    for shape in [(0, most + more) for more in range(-3, 3)] + [(most // 2, 0, 2), (most // 2, 0, 3), (0,) * 32, ()]:
        try:
            np.empty((0, most), kind) if shape == (0, most) else np.empty(shape, kind)
            there = True
        except ValueError:
            there = False
        assert fits_array(DTYPES[dtype], shape) == there, shape


def test_a_header_that_no_reader_takes_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    base = {name: model() for name in ("base", "tuned")}
    path = write_safetensors(tmp_path / "base.safetensors", base["base"])
    tuned = tune(base["tuned"])
    write_safetensors(tmp_path / "tuned.safetensors", tuned)
    diff = diffpack.extract(path, tmp_path / "tuned.safetensors", tmp_path / "d.dpk")
    before = sorted(item.name for item in tmp_path.iterdir())
    monkeypatch.setattr(safetensors_writer, "MOST_HEADER_BYTES", 500)
    for output in ("o.safetensors", "o"):
        with pytest.raises(CheckpointError, match=r"its header would take \d+ bytes, .* at most 500: write .* shards"):
            diffpack.apply(path, diff, tmp_path / output)
        assert sorted(item.name for item in tmp_path.iterdir()) == before
    diffpack.apply(path, diff, tmp_path / "o.bin")  # what the message says helps
    names = sorted(tuned)
    shards = {f"{at}.safetensors": {name: tuned[name] for name in names[at::4]} for at in range(4)}
    index = write_shards(tmp_path / "shards", shards)
    diffpack.apply(index, diffpack.extract(index, tuned), tmp_path / "sharded")


def test_the_limit_is_what_readers_take(tmp_path):
    raw = b"{}".ljust(MOST_HEADER_BYTES)
    with SafetensorsWriter([(tmp_path / "a.safetensors", raw)]):
        pass
    assert not diffpack.open_checkpoint(tmp_path / "a.safetensors").tensors
    with pytest.raises(CheckpointError, match="100,000,001 bytes"):
        SafetensorsWriter([(tmp_path / "b.safetensors", raw + b" ")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]

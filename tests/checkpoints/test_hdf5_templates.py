"""Over a template everything of an HDF5 file survives that is no tensor's bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.tensors.dtypes import DTYPES, Words
from diffpack.tensors.info import TensorInfo
from tests.tools.hdf5_files import assert_holds, write
from tests.tools.named_tensors import f32, named

h5py = pytest.importorskip("h5py")

KERAS_NAMES = ["dense/kernel:0", "dense/bias:0"]


def keras_like(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"dense", b"norm"])
        file.attrs["keras_version"] = "3.0"
        layer = file.create_group("dense")
        layer.attrs["weight_names"] = np.array([name.encode() for name in KERAS_NAMES])
        layer["dense/kernel:0"] = np.arange(12, dtype="<f4").reshape(3, 4)
        layer["dense/bias:0"] = np.zeros(4, "<f4")
        file["norm/gamma:0"] = np.ones(4, "<f4")
        file["vocabulary"] = ["a", "b"]
        file.create_group("nothing").attrs["why"] = h5py.Empty("<f4")
        for number, name in enumerate(["dense/dense/kernel:0", "dense/dense/bias:0", "norm/gamma:0"]):
            file[name].attrs["role"] = f"weight {number}"
            file[name].attrs["fixed"] = np.bytes_(b"abc")
            file[name].attrs["numbers"] = np.arange(3, dtype=">i2")
            file[name].attrs["empty"] = h5py.Empty("<f8")
    return path


def attributes(item: Any) -> dict[str, Any]:
    return {
        key: (item.attrs.get_id(key).dtype, value.tolist() if hasattr(value, "tolist") else value)
        for key, value in item.attrs.items()
    }


def test_over_a_keras_like_template_attributes_and_structure_survive(tmp_path: Path) -> None:
    base = keras_like(tmp_path / "base.h5")
    tensors = named(
        {
            "dense/dense/kernel:0": f32(3, 4),  # overwritten in place
            "dense/dense/bias:0": TensorInfo(DTYPES["BF16"], (4,)),  # retyped
            "norm/gamma:0": f32(6),  # resized
            "dense/lora/a": f32(2, 2),  # new, in an old group
            "head/kernel": f32(2),  # new, in a new group
        }
    )
    before = base.read_bytes()
    tuned = write(tmp_path / "tuned.h5", tensors, base)
    assert base.read_bytes() == before
    assert_holds(tuned, tensors)
    with h5py.File(base) as old, h5py.File(tuned) as new:
        for path in ("/", "dense", "nothing", "dense/dense/kernel:0", "norm/gamma:0"):
            assert attributes(new[path]) == attributes(old[path]), path
        retyped = attributes(new["dense/dense/bias:0"])
        assert retyped.pop("diffpack_dtype")[1] == b"BF16"
        assert retyped == attributes(old["dense/dense/bias:0"])
        assert new["vocabulary"][:].tolist() == [b"a", b"b"]
    back = {name: words_of(base, name) for name in ("dense/dense/kernel:0", "dense/dense/bias:0", "norm/gamma:0")}
    assert_holds(write(tmp_path / "back.h5", back, tuned), back)
    with h5py.File(base) as old, h5py.File(tmp_path / "back.h5") as new:
        assert attributes(new["dense/dense/bias:0"]) == attributes(old["dense/dense/bias:0"])


def words_of(path: Path, name: str) -> tuple[TensorInfo, Words]:
    with Hdf5Checkpoint(path) as checkpoint:
        return checkpoint.info(name), checkpoint.words(name)


def test_removed_tensors_go_and_what_stands_in_a_tensors_way_gives_way(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "base.h5", "w") as file:
        file["a/x"] = np.ones(2, "<f4")
        file["b"] = np.ones(2, "<f4")
        file["c"] = "text"
        file["d"] = h5py.SoftLink("/nowhere")
        file["e"] = file["a"]
        file["f/text"] = "text"
        file["kept"] = "text"
    tensors = named({"a": f32(1), "b/y": f32(2), "c": f32(3), "d/z": f32(4), "e/v": f32(5), "e/w": f32(), "f": f32(7)})
    tuned = write(tmp_path / "tuned.h5", tensors, tmp_path / "base.h5")
    assert_holds(tuned, tensors)
    with h5py.File(tuned) as file:
        assert file["kept"][()] == b"text"


def test_second_names_of_a_dataset_follow_it_unless_they_become_tensors(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "base.h5", "w") as file:
        file["a"] = np.ones(2, "<f4")
        file["b"] = file["a"]
        file["gone"] = np.ones(2, "<f4")
        file["gone too"] = file["gone"]
        file["s"] = h5py.SoftLink("/a")
    same, resized = named({"a": f32(2)}), named({"a": f32(3)})
    for tensors in (same, resized):
        with h5py.File(write(tmp_path / "tuned.h5", tensors, tmp_path / "base.h5")) as file:
            assert sorted(file) == ["a", "b", "s"]
            assert file["a"] == file["b"] == file["s"]
    split = named({"a": f32(2), "b": f32(2)})
    assert_holds(write(tmp_path / "split.h5", split, tmp_path / "base.h5"), split)


def test_dimension_scales_are_references_and_said_to_be_left_out(tmp_path: Path) -> None:
    """Which dataset lies along a dimension is told by references, which mean nothing in another file."""
    with h5py.File(tmp_path / "base.h5", "w") as file:
        file["scale"] = np.arange(3.0)
        file["scale"].make_scale("position")
        file["w"] = np.zeros((3, 2), "<f4")
        file["w"].dims[0].attach_scale(file["scale"])
    with Hdf5Checkpoint(tmp_path / "base.h5") as checkpoint:
        content, left_out = checkpoint.structure()
    assert content.tensors.keys() == {"scale", "w"}
    assert [item.split(" (")[0] for item in left_out] == ["scale", "w"]
    assert "REFERENCE_LIST" in left_out[0]
    assert "DIMENSION_LIST" in left_out[1]

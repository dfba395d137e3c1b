"""All that an HDF5 file holds beside its tensors is kept and given back; what cannot be is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.checkpoints.hdf5_structure_writer import fitted
from diffpack.errors import CorruptFileError
from diffpack.format import hdf5_structure as structure
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from tests.tools.command_line import ok, run

RNG = np.random.default_rng(0)


def everything(path: Path, *, seed: int = 0) -> Path:
    """A file with a value of every kind."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"layers": seed})
        file.attrs["null"] = h5py.Empty("f4")
        file.attrs["layer_names"] = np.array([b"b", b"dense"])
        file.attrs["flag"] = True
        file.attrs["numbers"] = np.arange(6).reshape(2, 3)
        file.attrs["big"] = np.arange(3, dtype=">i4")
        file.attrs["complex"] = np.complex64(1 + 2j)
        file.attrs["text"] = np.array(["\u00e9", ""], dtype=h5py.string_dtype())
        file.attrs["ascii"] = np.array(["x"], dtype=h5py.string_dtype("ascii"))
        file.attrs["fixed"] = np.array(["\u00e9".encode()], dtype=h5py.string_dtype("utf-8", 5))
        file.attrs["empty"] = np.zeros((0, 3), "f8")
        group = file.create_group("z", track_order=True)
        group.attrs["weight_names"] = np.array([b"kernel:0"])
        group.create_dataset(
            "kernel:0", data=rng.standard_normal((40, 8)).astype("f4"), chunks=(8, 8), compression="gzip",
            compression_opts=7, shuffle=True, fletcher32=True, maxshape=(None, 8),
        )  # fmt: skip
        group.create_dataset("bias:0", data=rng.standard_normal(5), compression="lzf")
        group["big"] = (np.arange(4) + seed).astype(">f8")
        group["a"] = np.float32(seed)
        group["kernel:0"].attrs["trainable"] = np.bool_(False)
        file.create_group("optimizer").attrs["name"] = "adam"
        file["soft"] = h5py.SoftLink("/z/big")
        file["also"] = group["bias:0"]
        file["z2"] = group
        file["vocab"] = np.array([b"one", b"three"])
        file["note"] = "text"
        file["nothing"] = h5py.Empty("i8")
        file["shape0"] = np.zeros((0, 4), "f4")
    return path


def described(path: Path) -> Any:
    with Hdf5Checkpoint(path) as checkpoint:
        return checkpoint.structure()


def test_a_file_is_given_back_with_all_it_holds(tmp_path: Path) -> None:
    base, tuned = everything(tmp_path / "base.h5"), everything(tmp_path / "tuned.h5", seed=1)
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk")
    assert diff.manifest.optional == ("structure",)
    applied = diffpack.apply(base, diff, tmp_path / "out.h5")
    assert applied.untold == ()
    assert described(tmp_path / "out.h5") == described(tuned)
    assert described(tuned)[1] == []
    assert diffpack.fingerprint(tmp_path / "out.h5") == diffpack.fingerprint(tuned)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["model_config"] == '{"layers": 1}'
        assert list(file["z"]) == ["kernel:0", "bias:0", "big", "a"]
        assert file["z/kernel:0"].compression_opts == 7
        assert file["z/kernel:0"].maxshape == (None, 8)
        assert file["z/big"].dtype == ">f8"
        assert file["soft"][0] == 1
        assert file["also"] == file["z/bias:0"]
        assert file["vocab"][1] == b"three"


def test_an_equal_structure_costs_nothing(tmp_path: Path) -> None:
    base = everything(tmp_path / "base.h5")
    with h5py.File(everything(tmp_path / "tuned.h5"), "r+") as file:
        file["z/big"][2] = 7
    diff = diffpack.extract(base, tmp_path / "tuned.h5", tmp_path / "d.dpk")
    assert diff.manifest.structure is not None
    assert diff.manifest.structure.content is None
    diffpack.apply(base, diff, tmp_path / "out.h5")
    assert described(tmp_path / "out.h5") == described(base)


def test_lossy_diffs_chains_and_undos_keep_it(tmp_path: Path) -> None:
    paths = [everything(tmp_path / f"{seed}.h5", seed=seed) for seed in range(3)]
    lossy = diffpack.extract(paths[0], paths[1], values="f16")
    diffpack.apply(paths[0], lossy, tmp_path / "lossy.h5")
    assert described(tmp_path / "lossy.h5") == described(paths[1])
    first, second = diffpack.extract(*paths[:2]), diffpack.extract(*paths[1:])
    diffpack.apply(paths[0], diffpack.compose([first, second]), tmp_path / "composed.h5")
    assert described(tmp_path / "composed.h5") == described(paths[2])
    diffpack.apply(paths[1], diffpack.invert(first, base=paths[0]), tmp_path / "undone.h5")
    assert described(tmp_path / "undone.h5") == described(paths[0])


def test_what_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    everything(tmp_path / "base.h5")
    with h5py.File(everything(tmp_path / "tuned.h5"), "r+") as file:
        file.attrs["reference"] = file["z"].ref
        file["pairs"] = np.zeros(2, [("a", "i4"), ("b", "f4")])
        file["far"] = h5py.ExternalLink("secret.h5", "/")
    said = run("extract", "--base", "base.h5", "--tuned", "tuned.h5", "-o", "d.dpk").stderr
    assert "not stored: 3 items: / (its attribute 'reference', of a type that is not kept)" in said
    assert "far (a link into another file)" in said
    assert "pairs (a dataset of a type that is not kept)" in said
    ok("apply", "--base", "base.h5", "d.dpk", "-o", "out.h5")
    with h5py.File("out.h5") as file:
        assert "far" not in file


def test_where_nobody_knows_it_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tuned file that is no HDF5, or a diff without layout: the base's structure, as far as it fits, and a word."""
    monkeypatch.chdir(tmp_path)
    base = everything(tmp_path / "base.h5")
    with Hdf5Checkpoint(base) as checkpoint:
        arrays = {name: np.array(array) for name, array in diffpack.load(base, diffpack.extract(base, base)).items()}
        assert checkpoint.tensors.keys() == arrays.keys()
    arrays["new/w"] = np.ones(3, np.float32)
    del arrays["z/a"]
    diffpack.extract(base, arrays, "d.dpk").close()
    said = run("apply", "--base", "base.h5", "d.dpk", "-o", "out.h5").stderr
    assert "not known: 1 item: attributes and all else" in said
    assert "those of the base stand there" in said
    report = json.loads(ok("apply", "--base", "base.h5", "d.dpk", "-o", "out2.h5", "--json"))
    assert report["untold"]
    with h5py.File("out.h5") as file:
        assert "a" not in file["z"]
        assert file["new/w"][0] == 1
    assert os.path.getsize("out.h5") < os.path.getsize("base.h5") * 1.2


def test_no_empty_groups_of_the_base_stay_and_space_is_given_back(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "base.h5", "w") as file:
        for name in ("old/a/w", "old/b/w", "kept/w"):
            file[name] = RNG.standard_normal(50_000)
        file.create_group("always empty")
    tuned = {"new/w": np.ones(10), "kept/w": np.ones(50_000)}
    diff = diffpack.extract(tmp_path / "base.h5", tuned, allow_removed=True)
    diffpack.apply(tmp_path / "base.h5", diff, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert sorted(file) == ["always empty", "kept", "new"]
    assert os.path.getsize(tmp_path / "out.h5") < 50_000 * 8 * 1.1


def test_a_tensor_takes_the_place_of_what_is_in_its_way() -> None:
    item = structure.TensorItem("a", False, None, None, (), ())
    group = structure.GroupItem("g", False, ())
    link = structure.LinkItem("b", "a", soft=False)
    text = structure.DataItem("t", structure.Value("utf8", (), strings=("x",)), ())
    content = structure.FileStructure(False, (), (item, group, link, text))
    info = TensorInfo(DTYPES["F32"], (2,))
    kept = fitted(content, {"a/w": info, "g": info, "t": info}, lambda name: True)
    assert kept.items == ()
    assert fitted(content, {"a": info}, lambda name: True) == content


def data(value: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "data", "path": "d", "value": value, "attributes": []}


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("an item twice", {"kind": "group", "path": "g", "ordered": False, "attributes": []}),
    ("no group around it", {"kind": "group", "path": "x/y", "ordered": False, "attributes": []}),
    ("a way out", {"kind": "group", "path": "g/..", "ordered": False, "attributes": []}),
    ("no name", {"kind": "group", "path": "", "ordered": False, "attributes": []}),
    ("an unknown kind", {"kind": "program", "path": "p"}),
    ("a link to nothing", {"kind": "link", "path": "l", "target": "none", "soft": False}),
    ("a type", data({"type": "<f3", "shape": [], "data": "000000"})),
    ("an object", data({"type": "|O8", "shape": [], "data": "00" * 8})),
    ("too few", data({"type": "<f4", "shape": [2], "data": "00" * 4})),
    ("no hex", data({"type": "S1", "shape": [1], "data": "0G"})),
    ("huge", data({"type": "S1", "shape": [1 << 40], "data": ""})),
    ("strings", data({"type": "utf8", "shape": [2], "strings": ["a"]})),
    ("null with data", data({"type": "S1", "shape": None, "data": ""})),
    (
        "a plug-in",
        {
            "kind": "tensor", "path": "t", "big_endian": False, "chunks": [4], "largest": None,
            "filters": [[32015, []]], "attributes": [],
        },
    ),
    (
        "chunks of nothing",
        {
            "kind": "tensor", "path": "t", "big_endian": False, "chunks": [0], "largest": None, "filters": [],
            "attributes": [],
        },
    ),
    (
        "dimensions whose product takes for ever",
        {
            "kind": "tensor", "path": "t", "big_endian": False, "chunks": [1 << 62] * 100_000, "largest": None,
            "filters": [], "attributes": [],
        },
    ),
    (
        "an attribute without a name",
        {
            "kind": "group", "path": "h", "ordered": False,
            "attributes": [{"name": "", "value": {"type": "bool", "shape": [], "data": "01"}}],
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize("item", [pytest.param(item, id=what) for what, item in BROKEN])
def test_a_structure_is_not_trusted(item: dict[str, Any]) -> None:
    good = {"kind": "group", "path": "g", "ordered": False, "attributes": []}
    structure.from_content({"ordered": False, "attributes": [], "items": [good]}, "d.dpk")
    with pytest.raises(CorruptFileError, match=r"^d\.dpk: structure.*\[L5\]"):
        structure.from_content({"ordered": False, "attributes": [], "items": [good, item]}, "d.dpk")

"""scipy reads what is written, single matrices are added, and hostile ones are refused."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import diffpack
from diffpack.errors import BaseNeededError, CorruptFileError, DiffpackError, WrongBaseError
from tests.tools.containers import whole
from tests.tools.models import bits

sparse = pytest.importorskip("scipy.sparse")


def test_scipy_reads_what_is_written(tmp_path):
    base, tuned = whole(tmp_path)
    matrix = sparse.load_npz(tmp_path / "m" / "w.npz")
    assert matrix.shape == (20, 30)
    steps = diffpack.extract(base, tuned)["w"].to_scipy()
    assert np.array_equal(matrix.toarray(), steps.toarray())
    assert matrix.dtype == np.int32
    assert sparse.load_npz(tmp_path / "m" / "v.npz").shape == (1, 7)


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_a_single_matrix_is_added(tmp_path, form):
    base = {"m.w": np.ones((20, 30), np.float32), "other": np.zeros(3, np.float32)}
    change = np.where(np.random.default_rng(0).random((20, 30)) < 0.1, 0.5, 0)
    sparse.save_npz(tmp_path / "m.w.npz", sparse.coo_array(change).asformat(form))  # float64
    done = diffpack.convert(tmp_path / "m.w.npz", base=base)
    assert (done.format, done.exact) == ("scipy", False)
    assert bits(diffpack.load(base, done.diff)) == bits({**base, "m.w": (base["m.w"] + change).astype(np.float32)})
    with pytest.raises(WrongBaseError, match="a matrix of"):
        diffpack.convert(tmp_path / "m.w.npz", base={"m.w": np.ones((30, 20), np.float32)})
    with pytest.raises(BaseNeededError):
        diffpack.convert(tmp_path / "m.w.npz")


def npz(path, **arrays):
    shape = {"shape": np.array([20, 30]), "format": np.array(b"coo")}
    np.savez_compressed(path, **(shape | {name: np.array(array) for name, array in arrays.items()}))
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {"row": [20], "col": [0], "data": [1.0]},
        {"row": [0], "col": [-1], "data": [1.0]},
        {"row": [0, 0], "col": [1, 1], "data": [1.0, 1.0]},
        {"row": [0], "col": [1], "data": [1.0, 2.0]},
        {"row": [0.5], "col": [1], "data": [1.0]},
        {"row": [0], "col": [1], "data": [np.nan]},
        {"row": [0], "col": [1]},
        {"row": [0], "col": [1], "data": np.array([object()])},
        {"row": np.zeros(1 << 22, np.int64), "col": [1], "data": [1.0]},
        {"row": [0], "col": [1], "data": np.zeros(1 << 22)},
        {"indices": [0], "indptr": np.zeros(21, int), "data": [1.0], "format": b"csr"},
        {"indices": [0], "indptr": [0, 1], "data": [1.0], "format": b"csr"},
        {"indices": [40], "indptr": [0] + [1] * 20, "data": [1.0], "format": b"csr"},
        {"data": [1.0], "format": b"dia"},
    ],
)
def test_hostile_matrices_are_refused(tmp_path, arrays):
    base = {"w": np.ones((20, 30), np.float32)}
    with pytest.raises(DiffpackError):
        diffpack.convert(npz(tmp_path / "w.npz", **arrays), tmp_path / "x.dpk", base=base, from_="scipy")
    assert not (tmp_path / "x.dpk").exists()


def test_damaged_matrices_and_indexes_raise_our_errors_only(tmp_path):
    base, _ = whole(tmp_path)
    assert base
    index = tmp_path / "m" / "diffpack.json"
    good = index.read_bytes()
    for place in ("../d.h5", "/etc/passwd", "missing.npz", ""):
        value = json.loads(good)
        value["records"][1]["place"] = place
        index.write_text(json.dumps(value))
        with pytest.raises(DiffpackError):
            diffpack.convert(tmp_path / "m")
    index.write_bytes(good)
    path = tmp_path / "m" / "w.npz"
    data = path.read_bytes()
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            found = diffpack.convert(tmp_path / "m").diff
        except DiffpackError:
            continue
        assert found["w"].shape == (20, 30)  # where the change hit what nobody reads
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00\xff\xff")
    with pytest.raises(CorruptFileError):
        diffpack.convert(tmp_path / "m")

"""NumPy's numbers and arrays in pickles: numbers are state, arrays are tensors among tensors, nothing is run."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import pathlib
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.torch_reader import TorchCheckpoint
from diffpack.errors import CheckpointError, UnsupportedCheckpointError

torch = pytest.importorskip("torch")


def w(value: float = 1.0) -> Any:
    return torch.full((2, 2), value)


def opened(tmp_path: Path, value: Any, **options: Any) -> TorchCheckpoint:
    torch.save(value, tmp_path / "a.pt", **options)
    return TorchCheckpoint(tmp_path / "a.pt")


SCALARS = [
    np.float64(0.5), np.float32(2), np.float16(1), np.int64(-3), np.uint8(7), np.bool_(True), np.complex128(1j),
    np.str_("best"), np.bytes_(b"x"), np.datetime64("2020-01-01"), np.float64("nan"), np.zeros((), np.float32),
]  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("scalar", SCALARS, ids=[type(scalar).__name__ for scalar in SCALARS])
def test_numbers_of_numpy_beside_the_weights_are_state(tmp_path: Path, scalar: Any, legacy: bool) -> None:
    checkpoint = opened(
        tmp_path, {"model": {"a": w(), "momentum": scalar}, "acc": scalar}, _use_new_zipfile_serialization=not legacy
    )
    assert list(checkpoint.tensors) == ["a"]
    assert sorted(checkpoint.left_out) == ["acc", "model.momentum"]


def test_arrays_beside_the_dict_of_the_weights_are_state(tmp_path: Path) -> None:
    value = {"model": {"a": w()}, "losses": np.arange(5.0), "stats": {"mean": np.ones(3)}}
    checkpoint = opened(tmp_path, value)
    assert list(checkpoint.tensors) == ["a"]
    assert checkpoint.left_out == ["losses", "stats"]


def test_arrays_among_tensors_are_tensors_and_noted(tmp_path: Path) -> None:
    value = {"model": {"a": w(), "scale": np.arange(3, dtype=np.float32), "deep": {"b": np.ones(2)}}, "epoch": 3}
    checkpoint = opened(tmp_path, value)
    assert list(checkpoint.tensors) == ["a", "scale", "deep.b"]
    assert checkpoint.words("scale").view("<f4").tolist() == [0, 1, 2]
    assert any("NumPy arrays, taken as tensors: model.scale, model.deep.b" in note for note in checkpoint.notes)


ARRAYS = {
    "f4": np.arange(6, dtype="f4").reshape(2, 3),
    "f2": np.arange(6, dtype="f2"),
    "bool": np.array([True, False]),
    "big": np.arange(6, dtype=">f8").reshape(3, 2),
    "fortran": np.asfortranarray(np.arange(24, dtype="i4").reshape(2, 3, 4)),
    "empty": np.zeros((0, 3)),
    "complex": np.array([1 + 2j], "c8"),
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_of_arrays_alone_is_read(tmp_path: Path, protocol: int) -> None:
    """As Detectron2's model zoo keeps weights."""
    value = {"model": dict(ARRAYS), "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(value, protocol))
    with diffpack.open_checkpoint(tmp_path / "model.pkl") as checkpoint:
        assert list(checkpoint.tensors) == list(ARRAYS)
        for name, array in ARRAYS.items():
            plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
            assert (checkpoint.tensors[name].shape, checkpoint.words(name).tobytes()) == (array.shape, plain.tobytes())
        assert checkpoint.left_out == ["__author__", "matching_heuristics"]
        assert checkpoint.words("f4").flags.writeable is False
    plain = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in ARRAYS.items()}
    assert diffpack.fingerprint(tmp_path / "model.pkl") == diffpack.fingerprint(plain)


def test_arrays_of_objects_text_and_times_are_state(tmp_path: Path) -> None:
    odd = [np.array([{"a": 1}, None], object), np.array(["a"]), np.array(["2020"], "M8[Y]"), np.zeros(2, [("x", "f4")])]
    checkpoint = opened(tmp_path, {"a": w(), "odd": odd[0], "text": odd[1], "times": odd[2]})
    assert (list(checkpoint.tensors), checkpoint.left_out) == (["a"], ["odd", "text", "times"])


def test_arrays_of_numbers_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpointError, match="'b': NumPy arrays of complex128"):
        opened(tmp_path, {"a": w(), "b": np.zeros(2, "c16")})


def test_what_scripts_keep_beside_the_weights_is_left_out(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x"), when=datetime.datetime(2020, 1, 1)),
        "simple": types.SimpleNamespace(a=1),
        "path": pathlib.PurePosixPath("a/b"),
        "took": datetime.timedelta(seconds=3),
        "recent": collections.deque([1, 2], maxlen=5),
        "price": decimal.Decimal("0.1"),
        "names": frozenset({"a"}),
        "range": range(3),
        "where": slice(1, 2),
        "counts": collections.defaultdict(int, a=1),
    }
    for legacy in (False, True):
        checkpoint = opened(tmp_path, {"model": {"a": w()}, **state}, _use_new_zipfile_serialization=not legacy)
        assert (list(checkpoint.tensors), checkpoint.left_out) == (["a"], list(state))


def test_a_default_dict_of_tensors_is_a_dict(tmp_path: Path) -> None:
    assert list(opened(tmp_path, {"model": collections.defaultdict(list, {"a": w()})}).tensors) == ["a"]


PROGRAMS = {
    "bytes missing": b"(K\x01K\x03\x85cnumpy\ndtype\nX\x02\0\0\0f4\x85R\x89C\x04aaaat",
    "negative": b"(K\x01J\xff\xff\xff\xff\x85cnumpy\ndtype\nX\x02\0\0\0f4\x85R\x89C\x04aaaat",
    "no dtype": b"(K\x01K\x01\x85X\x02\0\0\0f4\x89C\x04aaaat",
    "huge": b"(K\x01\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85cnumpy\ndtype\nX\x02\0\0\0f4\x85R\x89C\x04aaaat",
    "no state": b"K\x01",
}
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"


@pytest.mark.parametrize("state", PROGRAMS.values(), ids=PROGRAMS)
def test_arrays_that_cannot_be_are_refused(tmp_path: Path, state: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x03}X\x01\0\0\0w" + EMPTY + state + b"bs.")
    with pytest.raises(CheckpointError):
        diffpack.open_checkpoint(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "call",
    [
        b"cnumpy.core.multiarray\nfromfile\nX\x01\0\0\0x\x85R",
        b"cnumpy\nload\nX\x01\0\0\0x\x85R",
        b"cbuiltins\ndict\n)R",
        b"cnumpy.core.multiarray\n_reconstruct\ncbuiltins\nlist\nK\0\x85C\x01b\x87R",
        b"ccopyreg\n_reconstructor\ncbuiltins\nlist\ncbuiltins\nobject\nN\x87R",
        b"cbuiltins\nlist\n)\x81",
    ],
)
def test_nothing_but_the_known_names_is_called(tmp_path: Path, call: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x03}X\x01\0\0\0w" + call + b"s.")
    with pytest.raises(CheckpointError):
        diffpack.open_checkpoint(tmp_path / "a.pkl")

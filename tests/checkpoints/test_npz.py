"""NumPy archives: every array that NumPy saves as numbers is read bit for bit, packed or not, and no pickle is run."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.npz_reader import NpzCheckpoint
from diffpack.errors import CheckpointError, UnsupportedCheckpointError
from tests.tools.models import bits

DTYPES = "?bhilqBHILQefdF"


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray[Any, Any]] = {}
    for code in DTYPES:
        dtype = np.dtype(code)
        raw = rng.integers(0, 2 if code == "?" else 256, 24 * dtype.itemsize, np.uint8).tobytes()
        found[f"a/{dtype.name}{code}"] = np.frombuffer(raw, dtype).reshape(2, 3, 4)
    whole = found["a/float32f"]
    return found | {
        "scalar": np.float32(3).reshape(()),
        "empty": np.zeros((0, 5), np.int32),
        "fortran": np.asfortranarray(whole),
        "view": whole[:, ::2, 1],
        "swapped": whole.astype(">f4"),
        "swapped.fortran": np.asfortranarray(whole.astype(">f4")),
        "größe": np.ones(1),
    }


def native(found: dict[str, Any]) -> dict[str, Any]:
    return {name: array.astype(array.dtype.newbyteorder("<")) for name, array in found.items()}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("mmap", [True, False])
def test_every_array_of_numbers_is_read_bit_for_bit(tmp_path: Path, save: Any, mmap: bool) -> None:
    found = arrays()
    save(tmp_path / "m.npz", **found)
    with diffpack.open_checkpoint(tmp_path / "m.npz", mmap=mmap) as opened:
        assert list(opened.tensors) == list(found)
        for name, array in native(found).items():
            assert opened.tensors[name].shape == array.shape, name
            assert opened.words(name).tobytes() == np.ascontiguousarray(array).tobytes(), name
            source = opened.word_source(name)
            assert source[0 : source.size].tobytes() == opened.words(name).tobytes(), name
    assert diffpack.fingerprint(tmp_path / "m.npz") == diffpack.fingerprint(native(found))


def test_a_result_is_written_as_numpy_reads_it_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    found = native(arrays())
    tuned = {**found, "view": found["view"] + 1, "new": np.arange(70_000, dtype=np.int16)}
    np.savez(tmp_path / "base.npz", **found)
    diff = diffpack.extract(tmp_path / "base.npz", tuned)
    for name in ("out.npz", "again.npz"):
        diffpack.apply(tmp_path / "base.npz", diff, tmp_path / name, threads=3)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as loaded:
        assert bits({name: loaded[name] for name in loaded.files}) == bits(tuned)
    assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None


def test_a_folder_with_an_archive_is_a_model_and_is_given_back_as_one(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    np.savez(tmp_path / "base" / "weights.npz", w=np.ones(3, np.float32))
    (tmp_path / "base" / "config.json").write_text("{}")
    tuned = {"w": np.full(3, 2, np.float32)}
    diffpack.apply(tmp_path / "base", diffpack.extract(tmp_path / "base", tuned), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "weights.npz"]
    with np.load(tmp_path / "out" / "weights.npz") as loaded:
        assert bits(dict(loaded)) == bits(tuned)


def test_text_is_left_out_and_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", w=np.ones(3), words=np.array(["a", "b"]), raw=np.array([b"x"]))
    opened = diffpack.open_checkpoint(tmp_path / "m.npz")
    assert (list(opened.tensors), opened.left_out) == (["w"], ["raw", "words"])
    for odd, said in (
        (np.array([{"w": 1}], object), "objects, which only running a pickle would read"),
        (np.zeros(2, [("x", "f4")]), "dtype|fields"),
        (np.array(["2020-01-01"], "M8[D]"), "dtype"),
        (np.zeros(2, "c16"), "dtype"),
        (np.zeros(2, "V2"), "dtype"),
    ):
        np.savez(tmp_path / "m.npz", w=np.ones(3), odd=odd)
        with pytest.raises(UnsupportedCheckpointError, match=f"'odd': an array .*({said})"):
            diffpack.open_checkpoint(tmp_path / "m.npz")


def test_what_numpy_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = {"w": torch.ones(4, dtype=torch.bfloat16)}
    diff = diffpack.extract(base, {"w": base["w"] * 2})
    with pytest.raises(UnsupportedCheckpointError, match=r"NumPy cannot hold BF16.*\.safetensors"):
        diffpack.apply(base, diff, tmp_path / "out.npz")
    nul = {"a\0b": np.ones(2)}
    diff = diffpack.extract(nul, nul)
    with pytest.raises(UnsupportedCheckpointError, match="no name of a file"):
        diffpack.apply(nul, diff, tmp_path / "out.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_cut_and_many_changed_bytes_raise_our_errors_only(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "m.npz", w=np.arange(40.0), b=np.asfortranarray(np.ones((2, 3), np.float32)))
    whole = (tmp_path / "m.npz").read_bytes()
    rng = np.random.default_rng(1)
    cases = [whole[:size] for size in range(0, len(whole), 19)]
    for _ in range(300):
        changed = bytearray(whole)
        changed[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        cases.append(bytes(changed))
    refused = 0
    for content in cases:
        (tmp_path / "x.npz").write_bytes(content)
        try:
            with contextlib.closing(NpzCheckpoint(tmp_path / "x.npz")) as opened:
                for name in opened.tensors:
                    opened.words(name)
        except CheckpointError:
            refused += 1
    assert refused > len(whole) // 19


def member(text: str, body: bytes = b"") -> bytes:
    raw = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + len(raw).to_bytes(2, "little") + raw + body


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (member("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}"), "damaged"),
        (member("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", bytes(8)), "damaged"),
        (member("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}"), "damaged"),
        (member("__import__('os').system('touch called')"), "damaged"),
        (b"\x93NUMPY\x09\0" + bytes(99), "fields|no tensor|damaged"),
        (b"weights", "damaged"),
    ],
)
def test_members_that_are_no_arrays_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(CheckpointError, match=said):
        diffpack.open_checkpoint(tmp_path / "m.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, w=np.zeros(1 << 20, np.uint8))
    whole = bytearray(file.getvalue())
    at = whole.index(b"PK\x01\x02")
    whole[at + 24 : at + 28] = (1 << 31).to_bytes(4, "little")  # the size the directory claims
    (tmp_path / "m.npz").write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"claims|damaged"):
        diffpack.open_checkpoint(tmp_path / "m.npz")
    two = bytes(file.getvalue())
    with zipfile.ZipFile(tmp_path / "two.npz", "w") as archive:
        archive.writestr("w.npy", two)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("w.npy", two)
    with pytest.raises(CheckpointError, match="two members of one name"):
        diffpack.open_checkpoint(tmp_path / "two.npz")

"""HDF5 checkpoints keep every bit, and over a template everything else of the file too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpack.checkpoints.hdf5_reader import Hdf5Checkpoint
from diffpack.checkpoints.hdf5_writer import Hdf5Writer
from diffpack.errors import CheckpointError, MissingDependencyError, MissingTensorError, UnsupportedCheckpointError
from diffpack.tensors.dtypes import DTYPES, array_words, from_numpy, numpy_dtype
from diffpack.tensors.info import TensorInfo
from tests.tools.hdf5_files import assert_holds, write
from tests.tools.mapped import is_mapped
from tests.tools.named_tensors import Named, f32, fill, infos, named, some_words

h5py = pytest.importorskip("h5py")

SPECIAL_F32 = [0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 0x00000001, 0xFF800000]
NATIVE = sorted(name for name in DTYPES if (kind := numpy_dtype(DTYPES[name])) is not None and kind.isbuiltin != 2)


def every_dtype(seed: int = 0) -> Named:
    shapes = [(3, 8), (), (0, 4), (5, 3)]
    return named(
        {
            f"{name}/{number}": TensorInfo(DTYPES[name], shape)
            for name in reversed(DTYPES)
            for number, shape in enumerate(shapes)
        },
        seed,
    )


def test_every_dtype_and_shape_comes_back_bit_for_bit_and_in_order(tmp_path: Path) -> None:
    tensors = every_dtype()
    assert_holds(write(tmp_path / "a.h5", tensors), tensors)
    with Hdf5Checkpoint(tmp_path / "a.h5") as checkpoint:
        assert list(checkpoint.tensors) == list(tensors)
        assert (checkpoint.layout, checkpoint.notes) == ("hdf5", [])
        assert checkpoint.files == [tmp_path / "a.h5"]


def test_every_dtype_comes_back_over_a_template_of_the_same_or_of_other_shapes(tmp_path: Path) -> None:
    template = write(tmp_path / "base.h5", every_dtype())
    same = every_dtype(seed=1)
    assert_holds(write(tmp_path / "same.h5", same, template), same)
    moved = {f"{name}": every_dtype()[name.replace("/3", "/0")] for name in every_dtype()}
    assert_holds(write(tmp_path / "moved.h5", moved, template), moved)
    retyped = dict(zip(every_dtype(), reversed(every_dtype(seed=2).values()), strict=True))
    assert_holds(write(tmp_path / "retyped.h5", retyped, template), retyped)


@given(
    dtype=st.sampled_from(NATIVE),
    big=st.booleans(),
    stored=st.sampled_from([{}, {"chunks": True}, {"compression": "gzip", "shuffle": True}, {"maxshape": (None, 5)}]),
    user_block=st.sampled_from([0, 512]),
    seed=st.integers(0, 99),
)
def test_any_storage_and_byte_order_reads_as_little_endian_words_and_survives_as_template(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    big: bool,
    stored: dict[str, Any],
    user_block: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("h5")
    kind = numpy_dtype(DTYPES[dtype])
    assert kind is not None
    info = TensorInfo(DTYPES[dtype], (4, 5))
    words = some_words(info, seed)
    array = words.byteswap().view(kind.newbyteorder(">")) if big else words.view(kind)
    with h5py.File(folder / "a.h5", "w", userblock_size=user_block) as file:
        file.create_dataset("g/x", data=array.reshape(4, 5), **stored)
        attributes = (file["g/x"].dtype, file["g/x"].chunks, file["g/x"].compression)
    assert_holds(folder / "a.h5", {"g/x": (info, words)})
    other = {"g/x": (info, some_words(info, seed + 1))}
    assert_holds(write(folder / "b.h5", other, folder / "a.h5"), other)
    with h5py.File(folder / "b.h5") as file:
        assert (file["g/x"].dtype, file["g/x"].chunks, file["g/x"].compression) == attributes


def test_nan_payloads_and_negative_zero_survive_big_endian_files_both_ways(tmp_path: Path) -> None:
    words = np.array(SPECIAL_F32, "<u4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = words.astype(">u4").view(">f4")
    tensors = {"w": (f32(6), words)}
    assert_holds(tmp_path / "a.h5", tensors)
    swapped = {"w": (f32(6), words[::-1].copy())}
    assert_holds(write(tmp_path / "b.h5", swapped, tmp_path / "a.h5"), swapped)


def test_data_in_one_piece_is_memory_mapped_if_aligned_and_data_in_chunks_is_read(tmp_path: Path) -> None:
    values = np.arange(3000, dtype="<f4")
    tensors: Named = {f"w{number}": (f32(3000), array_words(values, DTYPES["F32"])) for number in range(5)}
    with Hdf5Checkpoint(write(tmp_path / "a.h5", tensors)) as checkpoint:
        assert all(is_mapped(checkpoint.words(name)) for name in tensors)
        words = checkpoint.words("w0")
    assert words.view("<f4").tolist() == values.tolist()  # after close
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("odd", data=np.arange(3, dtype=np.uint8))
        file.create_dataset("chunked", data=values, chunks=(100,))
        file.create_dataset("unwritten", (5,), "<f4", fillvalue=2)
        file.create_dataset("plain", data=values)
    with Hdf5Checkpoint(tmp_path / "b.h5") as checkpoint:
        assert not is_mapped(checkpoint.words("chunked"))
        assert checkpoint.words("unwritten").view("<f4").tolist() == [2] * 5
        for name in ("chunked", "plain"):
            assert checkpoint.words(name).view("<f4").tolist() == values.tolist()


def test_what_is_no_tensor_is_skipped_and_noted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/w"] = np.ones(3, "<f4")
        file["text"] = "words"
        file["fixed"] = np.array([b"ab"])
        file["pairs"] = np.zeros(2, [("a", "<f4"), ("b", "<i4")])
        file["ragged"] = h5py.Dataset(
            h5py.h5d.create(file.id, b"vlen", h5py.h5t.py_create(h5py.vlen_dtype("f4")), h5py.h5s.create_simple((2,)))
        )
        file["empty"] = h5py.Empty("<f4")
        file["soft"] = h5py.SoftLink("/g/w")
        file["gone"] = h5py.SoftLink("/nowhere")
        file["outside"] = h5py.ExternalLink("other.h5", "/w")
        file["zz"] = file["g/w"]
        file["loop"] = file["/"]
        file["type"] = np.dtype("<f4")
    with Hdf5Checkpoint(tmp_path / "a.h5") as checkpoint:
        assert list(checkpoint.tensors) == ["g/w"]
        notes = "\n".join(checkpoint.notes)
    for skipped in ("text", "fixed", "pairs", "ragged", "empty", "soft", "gone", "outside", "zz", "loop"):
        assert f": {skipped}" in notes
    assert "another name of 'g/w': zz" in notes


def test_numbers_that_are_not_ours_or_lie_in_other_files_are_refused_by_name(tmp_path: Path) -> None:
    bfloat = h5py.h5t.IEEE_F16LE.copy()
    bfloat.set_fields(15, 7, 8, 0, 7)
    bfloat.set_ebias(127)
    narrow = h5py.h5t.STD_I32LE.copy()
    narrow.set_precision(24)
    (tmp_path / "raw").write_bytes(b"\0" * 16)

    def refuses(make: Any) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            make(file)
        with pytest.raises(UnsupportedCheckpointError, match=r"a\.h5: 'x'"):
            Hdf5Checkpoint(tmp_path / "a.h5")

    def create(kind: Any) -> Any:
        return lambda file: h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((3,)))

    refuses(create(bfloat))  # NumPy would widen it to float32
    refuses(create(narrow))
    refuses(lambda file: file.create_dataset("x", (2,), np.complex128))
    refuses(lambda file: file.create_dataset("x", (2,), np.longdouble))
    refuses(lambda file: file.create_dataset("x", (4,), "<f4", external=[(str(tmp_path / "raw"), 0, 16)]))
    virtual = h5py.VirtualLayout((4,), "<f4")
    virtual[:] = h5py.VirtualSource("other.h5", "w", (4,))
    refuses(lambda file: file.create_virtual_dataset("x", virtual))


def test_bools_enums_and_complex_numbers_are_read_as_their_integers_and_floats(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["bool"] = np.array([True, False])
        file["enum"] = np.array([1, 5], h5py.enum_dtype({"A": 1, "B": 5}, "<i2"))
        file["complex"] = np.array([1 + 2j], "<c8")
    with Hdf5Checkpoint(tmp_path / "a.h5") as checkpoint:
        assert {name: str(info) for name, info in checkpoint.tensors.items()} == {
            "bool": "BOOL[2]",
            "complex": "C64[1]",
            "enum": "I16[2]",
        }
        assert checkpoint.words("bool").tolist() == [1, 0]
        assert checkpoint.words("enum").tolist() == [1, 5]
        assert checkpoint.words("complex").view("<f4").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("mark", "shape", "stored"),
    [
        ("BF16", None, np.zeros(3, "<u4")),
        ("BF16", None, np.zeros(3, "<i2")),
        ("C64", None, np.zeros(3, "<u4")),
        ("F4", None, np.zeros(3, "u1")),
        ("F4", [3], np.zeros(3, "u1")),
        ("F4", [-2, -3], np.zeros(3, "u1")),
        ("F99", None, np.zeros(3, "u1")),
        (b"\xff", None, np.zeros(3, "u1")),
        (7, None, np.zeros(3, "u1")),
    ],
)
def test_a_dtype_attribute_that_does_not_fit_is_refused(tmp_path: Path, mark: Any, shape: Any, stored: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = stored
        file["x"].attrs["diffpack_dtype"] = mark
        if shape:
            file["x"].attrs["diffpack_shape"] = shape
    with pytest.raises(CheckpointError, match=r"a\.h5"):
        Hdf5Checkpoint(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "names",
    [
        [""], ["."], [".."], ["/a"], ["a/"], ["a//b"], ["a/./b"], ["a/../b"], ["a\0b"], ["\ud800"],
        ["a", "a/b"], ["a/b/c", "a"], ["a/b", "a/b/c/d"],
    ],
)  # fmt: skip
def test_names_that_are_no_hdf5_paths_are_refused_by_name_and_leave_no_file(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"a\.h5: .*cannot be"):
        Hdf5Writer(tmp_path / "a.h5", {name: f32(1) for name in names})
    assert list(tmp_path.iterdir()) == []


def test_any_other_name_comes_back(tmp_path: Path) -> None:
    tensors = named({name: f32(1) for name in ("...", "a.b", " ", "\n", "é/日本", "a:0", "%s", "-", "x" * 3000)})
    assert_holds(write(tmp_path / "a.h5", tensors), tensors)
    assert_holds(write(tmp_path / "b.h5", tensors, tmp_path / "a.h5"), tensors)


def test_a_body_that_fails_and_a_tensor_never_filled_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Hdf5Writer(tmp_path / "a.h5", {"w": f32(4)}) as writer:
        fill_and_fail(writer)
    with (
        pytest.raises(CheckpointError, match="'w' was never written whole"),
        Hdf5Writer(tmp_path / "a.h5", {"w": f32(4)}) as writer,
    ):
        writer.write("w", 0, np.zeros(2, "<u4"))
    assert list(tmp_path.iterdir()) == []


def fill_and_fail(writer: Hdf5Writer) -> None:
    writer.write("w", 0, np.zeros(4, "<u4"))
    raise ZeroDivisionError


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    old, new = named({"w": f32(4)}), named({"w": f32(4)}, seed=1)
    write(tmp_path / "a.h5", old)
    with Hdf5Writer(tmp_path / "a.h5", infos(new), replace=True) as writer:
        fill(writer, new)
        assert_holds(tmp_path / "a.h5", old)
    assert_holds(tmp_path / "a.h5", new)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_the_file_does_not_depend_on_the_time_or_the_order_of_writing(tmp_path: Path) -> None:
    tensors = every_dtype()
    write(tmp_path / "a.h5", tensors)
    time.sleep(1.1)  # HDF5 counts seconds
    with Hdf5Writer(tmp_path / "b.h5", infos(tensors)) as writer:
        fill(writer, dict(reversed(tensors.items())), piece=1000)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_threads_read_and_write_at_the_same_time(tmp_path: Path) -> None:
    tensors = named({f"g{number % 3}/t{number}": TensorInfo(DTYPES["BF16"], (50, number)) for number in range(20)})
    with Hdf5Writer(tmp_path / "a.h5", infos(tensors)) as writer, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: fill(writer, dict([item])), tensors.items()))
    with Hdf5Checkpoint(tmp_path / "a.h5") as checkpoint, ThreadPoolExecutor(8) as pool:
        for name, words in zip(tensors, pool.map(checkpoint.words, tensors), strict=True):
            assert words.tobytes() == tensors[name][1].tobytes()


def test_every_prefix_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.h5", named({"g/w": f32(20), "b": f32(3)})).read_bytes()
    for size in [*range(100), *range(100, len(whole), 37), len(whole) - 1]:
        (tmp_path / "b.h5").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"b\.h5"):
            Hdf5Checkpoint(tmp_path / "b.h5")


def test_a_changed_byte_is_read_or_refused_but_nothing_else(tmp_path: Path) -> None:
    tensors = named({"g/w": f32(20), "b": TensorInfo(DTYPES["BF16"], (3,))})
    whole = write(tmp_path / "a.h5", tensors).read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        (tmp_path / "b.h5").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            with Hdf5Checkpoint(tmp_path / "b.h5") as checkpoint:
                for name, info in checkpoint.tensors.items():
                    if info.nbytes < 1 << 20:
                        checkpoint.words(name)
        except CheckpointError:
            refused += 1
    assert refused


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.h5: cannot be written"):
        Hdf5Writer(tmp_path / "none" / "a.h5", {"w": f32(4)})
    assert os.listdir(tmp_path) == []


def test_damaged_compressed_data_is_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", data=np.zeros(1000, "<f4"), compression="gzip", fletcher32=True)
        start = file["w"].id.get_chunk_info(0).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[start + 4] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(raw)
    with Hdf5Checkpoint(tmp_path / "a.h5") as checkpoint, pytest.raises(CheckpointError, match="'w'"):
        checkpoint.words("w")


def test_unknown_names_missing_files_and_reading_after_close_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            Hdf5Checkpoint(path)
    assert os.listdir(tmp_path) == []
    checkpoint = Hdf5Checkpoint(write(tmp_path / "a.h5", named({"w": f32(4)})))
    with pytest.raises(MissingTensorError, match="'v'"):
        checkpoint.words("v")
    checkpoint.close()
    with pytest.raises(CheckpointError, match="'w'"):
        checkpoint.words("w")


def test_a_file_without_tensors_is_a_checkpoint(tmp_path: Path) -> None:
    assert_holds(write(tmp_path / "a.h5", {}), {})


def test_native_dtypes_are_plain_datasets_others_are_marked(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5", every_dtype())) as file:
        for name, dtype in DTYPES.items():
            dataset = file[f"{name}/0"]
            if name in NATIVE:
                assert dict(dataset.attrs) == {}
                assert from_numpy(dataset.dtype) == dtype
            else:
                assert dataset.attrs["diffpack_dtype"] == name.encode()
                assert dataset.dtype == dtype.word


def test_without_h5py_the_extra_is_named_and_no_file_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"reading HDF5 checkpoints needs h5py.*\[hdf5\]"):
        Hdf5Checkpoint(tmp_path / "a.h5")
    with pytest.raises(MissingDependencyError, match=r"writing HDF5 checkpoints needs h5py"):
        Hdf5Writer(tmp_path / "a.h5", {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("module", ["hdf5_reader", "hdf5_contents", "hdf5_writer"])
def test_importing_the_module_does_not_import_h5py(module: str) -> None:
    code = f"import sys, diffpack.checkpoints.{module}; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

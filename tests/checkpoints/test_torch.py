"""PyTorch checkpoints keep every bit, whatever the strides and nesting, and run no code."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpack.checkpoints.torch_reader import TorchCheckpoint
from diffpack.checkpoints.torch_tensors import tensor_words, to_torch
from diffpack.checkpoints.torch_writer import ShardedTorchWriter, TorchWriter
from diffpack.errors import CheckpointError, MissingDependencyError, MissingTensorError, UnsupportedCheckpointError
from diffpack.tensors.dtypes import DTYPES
from diffpack.tensors.info import TensorInfo
from tests.tools.mapped import is_mapped
from tests.tools.named_tensors import Named, assert_holds, fill, infos, some_words

torch = pytest.importorskip("torch")

TORCH_LACKS = {"F6_E2M3", "F6_E3M2"}
HELD = sorted(DTYPES.keys() - TORCH_LACKS)
SPECIAL_F32 = np.array([0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 0x00000001, 0xFF800000], "<u4")


def every_dtype() -> Named:
    shapes = [(3, 8), (), (0, 4), (5, 2)]
    infos = {
        f"{name}.{number}": TensorInfo(DTYPES[name], shape)
        for name in HELD
        for number, shape in enumerate(shapes)
        if not (name == "F4" and shape == ())
    }
    return {name: (info, some_words(info, seed)) for seed, (name, info) in enumerate(infos.items())}


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def test_every_dtype_and_shape_comes_back_bit_for_bit_and_in_order(tmp_path: Path) -> None:
    tensors = every_dtype()
    with TorchWriter(tmp_path / "a.pt", infos(tensors)) as writer:
        fill(writer, tensors)
    with TorchCheckpoint(tmp_path / "a.pt") as checkpoint:
        assert checkpoint.layout == "torch"
        assert checkpoint.files == [tmp_path / "a.pt"]
        assert checkpoint.notes == []
        assert_holds(checkpoint, tensors)


def test_nan_payloads_and_negative_zero_survive_a_file_torch_wrote(tmp_path: Path) -> None:
    values = torch.from_numpy(SPECIAL_F32.view("<f4").copy())
    with TorchCheckpoint(saved(tmp_path / "a.pt", {"w": values})) as checkpoint:
        assert checkpoint.words("w").tolist() == SPECIAL_F32.tolist()


@given(
    dtype=st.sampled_from(sorted(set(HELD) - {"F4"})),
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    data=st.data(),
)
def test_words_of_any_strides_are_those_of_the_contiguous_copy(
    dtype: str, shape: list[int], data: st.DataObject
) -> None:
    info = TensorInfo(DTYPES[dtype], tuple(shape))
    order = data.draw(st.permutations(range(len(shape))))
    step = data.draw(st.integers(1, 3))
    entry = DTYPES[dtype].bits // 8
    words = some_words(info, seed=sum(shape))
    view = to_torch(words, info).permute(order)[..., ::step]
    expected = words.view(f"V{entry}").reshape(shape).transpose(order)[..., ::step]
    found, result = tensor_words(view)
    assert found == TensorInfo(DTYPES[dtype], expected.shape)
    assert result.tobytes() == expected.tobytes()


@given(dtype=st.sampled_from(HELD), shape=st.lists(st.integers(0, 5), max_size=3), seed=st.integers(0, 99))
def test_to_torch_inverts_tensor_words(dtype: str, shape: list[int], seed: int) -> None:
    if dtype == "F4":
        shape = [*shape, 4]
    info = TensorInfo(DTYPES[dtype], tuple(shape))
    words = some_words(info, seed)
    tensor = to_torch(words, info)
    assert tensor.numel() == 0 or not np.shares_memory(tensor_words(tensor)[1], words)
    found, result = tensor_words(tensor)
    assert (found, result.tobytes()) == (info, words.tobytes())


def test_a_contiguous_tensor_is_not_copied() -> None:
    tensor = torch.zeros(4)
    words = tensor_words(tensor)[1]
    tensor[2] = 1
    assert words.tolist() == [0, 0, 0x3F800000, 0]


def test_to_torch_gives_a_writable_tensor_from_read_only_words() -> None:
    words = np.frombuffer(b"\0" * 16, "<u4")
    tensor = to_torch(words, TensorInfo(DTYPES["F32"], (4,)))
    tensor += 1
    assert words.tolist() == [0, 0, 0, 0]


def test_lazy_conjugates_parameters_and_views_inside_a_storage_are_read_as_their_values() -> None:
    number = torch.tensor([1 + 2j], dtype=torch.complex64)
    assert tensor_words(number.conj())[1].view("<f4").tolist() == [1, -2]
    assert tensor_words(number.conj().imag)[1].view("<f4").tolist() == [-2]
    assert tensor_words(torch.nn.Parameter(torch.ones(1)))[1].view("<f4").tolist() == [1]
    assert tensor_words(torch.arange(6.0)[2:4])[1].view("<f4").tolist() == [2, 3]
    assert tensor_words(torch.ones(1).expand(3))[1].view("<f4").tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("ignore")  # torch announces the end of quantized and the youth of nested tensors
def test_tensors_that_are_not_plain_arrays_are_refused_by_name(tmp_path: Path) -> None:
    refused = {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "meta": torch.empty(3, device="meta"),
        "complex128": torch.ones(2, dtype=torch.complex128),
    }
    for name, tensor in refused.items():
        with pytest.raises(UnsupportedCheckpointError, match=f"^{name}: "):
            tensor_words(tensor, name)
    for name in ("sparse", "quantized", "complex128"):
        path = saved(tmp_path / "a.pt", {"fine": torch.ones(1), name: refused[name]})
        with pytest.raises(UnsupportedCheckpointError, match=f"a.pt: '{name}'"):
            TorchCheckpoint(path)


def test_tied_tensors_appear_under_both_names_and_are_known(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    path = saved(tmp_path / "a.bin", {"wte": tied, "other": torch.zeros(1), "lm_head": tied, "row": tied[1]})
    with TorchCheckpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["wte", "other", "lm_head", "row"]
        assert checkpoint.ties == {"lm_head": "wte"}
        assert np.shares_memory(checkpoint.words("wte"), checkpoint.words("lm_head"))
        assert checkpoint.words("row").view("<f4").tolist() == [3, 4, 5]


@pytest.mark.parametrize("legacy", [False, True])
def test_contiguous_tensors_are_memory_mapped_in_both_formats(tmp_path: Path, legacy: bool) -> None:
    value = {"w": torch.arange(1000.0), "t": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2).bfloat16()}
    path = saved(tmp_path / "a.pt", value, _use_new_zipfile_serialization=not legacy)
    with TorchCheckpoint(path) as checkpoint:
        assert checkpoint.words("w").view("<f4").tolist() == list(range(1000))
        assert checkpoint.words("t").view("<f4").tolist() == [0, 3, 1, 4, 2, 5]
        assert checkpoint.words("b").tolist() == [0x3F80] * 2
        assert [is_mapped(checkpoint.words(name)) for name in "wtb"] == [True, False, True]


def test_an_empty_dict_is_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    with TorchWriter(tmp_path / "a.pt", {}):
        pass
    assert TorchCheckpoint(tmp_path / "a.pt").tensors == {}


class Malicious:
    """Unpickled without care, it runs a shell command."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "a.pt", tmp_path / "trace"
    value = {"w": torch.ones(1), "x": Malicious(trace)}
    if form == "bare":
        path.write_bytes(pickle.dumps({"x": Malicious(trace)}, protocol=2))
    else:
        saved(path, value, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="only weights can be loaded") as caught:
        TorchCheckpoint(path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))
    assert "system" in str(caught.value)


def test_every_prefix_of_a_file_is_refused(tmp_path: Path) -> None:
    value = {"w": torch.arange(5.0), "b": torch.ones(2)}
    for legacy in (False, True):
        whole = saved(tmp_path / "a.pt", value, _use_new_zipfile_serialization=not legacy).read_bytes()
        for size in [*range(80), *range(80, len(whole), 41), len(whole) - 1]:
            (tmp_path / "b.pt").write_bytes(whole[:size])
            with pytest.raises(CheckpointError):
                TorchCheckpoint(tmp_path / "b.pt")


def test_a_changed_byte_is_read_or_refused_but_nothing_else(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.pt", {"w": torch.arange(5.0), "b": torch.ones(2).bfloat16()}).read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        (tmp_path / "b.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            with TorchCheckpoint(tmp_path / "b.pt") as checkpoint:
                for name in checkpoint.tensors:
                    checkpoint.words(name)
        except CheckpointError:
            refused += 1
    assert refused


def test_a_file_that_is_no_pickle_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"hello world")
    for path in (tmp_path / "a.pt", tmp_path / "none.pt", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            TorchCheckpoint(path)


def test_unknown_names_and_reading_after_close_are_errors_but_views_stay(tmp_path: Path) -> None:
    checkpoint = TorchCheckpoint(saved(tmp_path / "a.pt", {"w": torch.ones(3)}))
    with pytest.raises(MissingTensorError, match="'v'"):
        checkpoint.words("v")
    words = checkpoint.words("w")
    checkpoint.close()
    assert words.view("<f4").tolist() == [1, 1, 1]
    with pytest.raises(CheckpointError, match="after close"):
        checkpoint.words("w")


def test_threads_read_and_write_at_the_same_time(tmp_path: Path) -> None:
    tensors = {
        f"t{number}": (info, some_words(info, number))
        for number in range(20)
        if (info := TensorInfo(DTYPES["BF16"], (50, number)))
    }
    with (
        TorchWriter(tmp_path / "a.pt", infos(tensors)) as writer,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda item: fill(writer, dict([item])), tensors.items()))
    with TorchCheckpoint(tmp_path / "a.pt") as checkpoint, ThreadPoolExecutor(8) as pool:
        for name, words in zip(tensors, pool.map(checkpoint.words, tensors), strict=True):
            assert words.tobytes() == tensors[name][1].tobytes()


def test_a_written_file_is_the_same_bytes_every_time_and_torch_reads_it(tmp_path: Path) -> None:
    tensors = every_dtype()
    for name in ("a.pt", "b.pt"):
        with TorchWriter(tmp_path / name, infos(tensors)) as writer:
            fill(writer, tensors, piece=1000)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert loaded["F32.0"].dtype == torch.float32
    assert loaded["F32.0"].shape == (3, 8)


def fill_and_fail(writer: TorchWriter) -> None:
    writer.write("w", 0, np.zeros(4, "<u4"))
    raise ZeroDivisionError


def test_a_full_disk_is_told_before_the_work_is_done_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    tensors = {"w": TensorInfo(DTYPES["F32"], (100_000,))}
    with pytest.raises(CheckpointError, match=r"one\.bin: cannot be written: .*No space left"):
        ShardedTorchWriter(tmp_path, {"one.bin": ["w"]}, tensors)
    with pytest.raises(CheckpointError, match=r"two\.bin: cannot be written: .*No space left"):
        TorchWriter(tmp_path / "two.bin", tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_fails_and_a_tensor_never_filled_leave_no_file(tmp_path: Path) -> None:
    tensors = {"w": TensorInfo(DTYPES["F32"], (4,))}
    with pytest.raises(ZeroDivisionError), TorchWriter(tmp_path / "a.pt", tensors) as writer:
        fill_and_fail(writer)
    with pytest.raises(CheckpointError, match="8 bytes"), TorchWriter(tmp_path / "a.pt", tensors) as writer:
        writer.write("w", 0, np.zeros(2, "<u4"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "info",
    [
        *(TensorInfo(DTYPES[name], (4,)) for name in sorted(TORCH_LACKS)),
        TensorInfo(DTYPES["F4"], (3,)),
        TensorInfo(DTYPES["F4"], ()),
    ],
    ids=str,
)
def test_what_torch_cannot_hold_is_refused_by_name(tmp_path: Path, info: TensorInfo) -> None:
    with pytest.raises(CheckpointError, match="'odd'"):
        TorchWriter(tmp_path / "a.pt", {"odd": info})
    with pytest.raises(UnsupportedCheckpointError, match="odd"):
        to_torch(np.zeros(info.words, np.uint8), info, "odd")


@pytest.mark.parametrize("legacy", [False, True])
def test_files_are_read_and_written_without_torch_which_only_tensors_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    path = saved(tmp_path / "a.pt", {"w": torch.arange(3.0)}, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setitem(sys.modules, "torch", None)
    with TorchCheckpoint(path) as checkpoint:
        words, info = checkpoint.words("w"), checkpoint.info("w")
    with TorchWriter(tmp_path / "b.pt", {"w": info}) as writer:
        writer.write("w", 0, words)
    with pytest.raises(MissingDependencyError, match=r"a tensor of torch's needs torch.*\[torch\]"):
        to_torch(words, info)
    monkeypatch.undo()
    assert torch.load(tmp_path / "b.pt", weights_only=True)["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("module", ["torch_reader", "torch_tensors", "torch_writer"])
def test_importing_the_module_does_not_import_torch(module: str) -> None:
    code = f"import sys, diffpack.checkpoints.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

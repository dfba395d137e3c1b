"""What a PyTorch file claims of its storages is compared with what it has before any byte is taken for a weight."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpack.checkpoints.torch_reader import TorchCheckpoint
from diffpack.checkpoints.torch_tensors import tensor_words
from diffpack.errors import CheckpointError, UnsupportedCheckpointError

torch = pytest.importorskip("torch")


def rewritten(path: Path, value: Any, **members: bytes | None) -> Path:
    """Save with torch, and replace or drop (None) members of the archive; its directory is right about the new ones."""
    stream = io.BytesIO()
    torch.save(value, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = members.get(name.removeprefix("archive/").replace("/", "_").replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def test_a_storage_shorter_than_its_tensor_is_refused_by_name(tmp_path: Path) -> None:
    value = {"fine": torch.zeros(2), "a": torch.arange(2.0)}
    path = rewritten(tmp_path / "short.pt", value, data_1=b"\0\0\0\0")
    with pytest.raises(CheckpointError, match=r"short\.pt: 'a': damaged: 4 bytes in the file, .* storage '1' has 8"):
        TorchCheckpoint(path)


def test_a_longer_record_is_no_fault_and_a_missing_one_is(tmp_path: Path) -> None:
    value = {"a": torch.arange(2.0)}
    longer = struct.pack("<3f", 0, 1, 9)
    assert TorchCheckpoint(rewritten(tmp_path / "a.pt", value, data_0=longer)).words("a").view("<f4").tolist() == [0, 1]
    with pytest.raises(CheckpointError, match="no member archive/data/0"):
        TorchCheckpoint(rewritten(tmp_path / "a.pt", value, data_0=None))


def test_an_expanded_tensor_is_refused_by_name_before_it_takes_memory(tmp_path: Path) -> None:
    torch.save({"b": torch.ones(1), "a": torch.ones(4).expand(1 << 28, 4)}, tmp_path / "expand.pt")
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"'a': 1073741824 entries over a storage of 4: .*clone"):
            TorchCheckpoint(tmp_path / "expand.pt")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    torch.save({"a": torch.arange(3).expand(1, 3)}, tmp_path / "fine.pt")
    assert TorchCheckpoint(tmp_path / "fine.pt").words("a").view("<i8").tolist() == [0, 1, 2]


STORAGE = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"


def program(first: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"a": a tensor over a storage of 4 floats}."""
    numbers = b"".join(pickle.dumps(item, 2)[2:-1] for item in (first, size, stride))
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + STORAGE + numbers + b"\x89}tRs."


@pytest.mark.parametrize(
    ("first", "size", "stride"),
    [
        (1, (4,), (1,)),
        (0, (4,), (2,)),
        (0, (2, 2), (3, 1)),
        (4, (1,), (1,)),
        (1 << 62, (1,), (1,)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 40, 1 << 40, 0, 1), (0, 0, 0, 1 << 62)),
        (0, (1,) * 65, (1,) * 65),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
    ],
)
def test_a_tensor_that_is_not_inside_its_storage_is_refused(
    tmp_path: Path, first: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = rewritten(tmp_path / "a.pt", {"a": torch.zeros(4)}, data_pkl=program(first, size, stride))
    if 0 in size:  # no entries: nothing is read
        assert TorchCheckpoint(path).words("a").size == 0
        return
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        TorchCheckpoint(path)


def test_the_same_program_within_its_storage_is_read(tmp_path: Path) -> None:
    content = np.arange(4, dtype="<f4").tobytes()
    path = rewritten(tmp_path / "a.pt", {"a": torch.zeros(4)}, data_0=content, data_pkl=program(0, (2, 2), (1, 2)))
    assert TorchCheckpoint(path).words("a").view("<f4").tolist() == [0, 2, 1, 3]


def test_a_record_that_reaches_into_the_directory_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4.0)}, tmp_path / "a.pt")
    raw = bytearray((tmp_path / "a.pt").read_bytes())
    at = raw.rindex(b"a/data/0")  # in the directory: its sizes stand 26 and 22 bytes before the name
    raw[at - 26 : at - 18] = struct.pack("<2I", len(raw) - 600, len(raw) - 600)
    (tmp_path / "b.pt").write_bytes(raw)
    with pytest.raises(CheckpointError, match="not where the directory says"):
        TorchCheckpoint(tmp_path / "b.pt")


def test_compressed_members_doubled_ones_and_other_archives_are_refused(tmp_path: Path) -> None:
    value = {"a": torch.zeros(1000)}
    stream = io.BytesIO()
    torch.save(value, stream)
    path = tmp_path / "b.pt"
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        TorchCheckpoint(path)
    path.write_bytes(stream.getvalue())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", bytes(4000))
    with pytest.raises(CheckpointError, match="two members of one name"):
        TorchCheckpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")
    with pytest.raises(CheckpointError, match=r"a zip archive \(readme\.txt\)"):
        TorchCheckpoint(path)


@pytest.mark.filterwarnings("ignore")  # torch announces the end of TorchScript
def test_a_torchscript_archive_is_named_as_one(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(UnsupportedCheckpointError, match=r"TorchScript archive.*state_dict") as caught:
        TorchCheckpoint(tmp_path / "script.pt")
    assert "weights_only" not in str(caught.value)


def test_a_changed_program_is_noticed_unless_torch_was_told_to_leave_checksums_out(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"name": torch.zeros(3)}, path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"X\x04\0\0\0name", b"X\x04\0\0\0mane"))
    with pytest.raises(CheckpointError, match="checksum"):
        TorchCheckpoint(path)
    if not hasattr(torch.serialization, "set_crc32_options"):
        return
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        torch.save({"name": torch.zeros(3)}, path)
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    assert list(TorchCheckpoint(path).tensors) == ["name"]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_key_twice_in_a_dict_is_refused(tmp_path: Path, legacy: bool) -> None:
    torch.save(
        {"aa": torch.zeros(1), "bb": torch.ones(1)}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy
    )
    raw = (tmp_path / "a.pt").read_bytes().replace(b"X\x02\0\0\0bb", b"X\x02\0\0\0aa")
    if not legacy:  # the program's checksum is not what is looked at here
        at = raw.index(b"a/data.pkl", raw.index(b"PK\x01\x02"))
        raw = raw[: at - 30] + bytes(4) + raw[at - 26 :]
    (tmp_path / "a.pt").write_bytes(raw)
    with pytest.raises(CheckpointError, match="'aa' stands there twice"):
        TorchCheckpoint(tmp_path / "a.pt")


def test_big_endian_storages_are_turned_round(tmp_path: Path) -> None:
    value = {"a": torch.arange(6.0).reshape(2, 3), "h": torch.ones(2).bfloat16(), "b": torch.tensor([1, 2]).byte()}
    swapped = {"data_0": np.arange(6, dtype=">f4").tobytes(), "data_1": b"\x3f\x80\x3f\x80", "data_2": b"\1\2"}
    opened = TorchCheckpoint(rewritten(tmp_path / "a.pt", value, byteorder=b"big", **swapped))
    for name, tensor in value.items():
        assert opened.words(name).tobytes() == tensor_words(tensor)[1].tobytes(), name
    with pytest.raises(CheckpointError, match="ordered"):
        TorchCheckpoint(rewritten(tmp_path / "a.pt", value, byteorder=b"mixed"))


def test_every_view_torch_saves_has_the_words_torch_sees(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    number, other = (torch.arange(12.0).reshape(3, 4).to(torch.complex64) * (1 + 2j) for _ in range(2))
    value = {
        "transposed": base.t(), "steps": base[1:3, ::2], "row": base[1], "column": base[:, 1:2], "none": base[:0],
        "number": torch.tensor(3), "conjugated": number.conj(), "both": number.t().conj(), "negated": other.conj().imag,
        "f8": base.to(torch.float8_e4m3fn)[:, ::2], "u16": torch.arange(4).to(torch.uint16)[1:],
    }  # fmt: skip
    torch.save(value, tmp_path / "a.pt")
    opened = TorchCheckpoint(tmp_path / "a.pt")
    for name, tensor in torch.load(tmp_path / "a.pt", weights_only=True).items():
        info, words = tensor_words(tensor)
        assert opened.info(name) == info, name
        assert opened.words(name).tobytes() == words.tobytes(), name
        assert opened.word_source(name)[0 : words.size].tobytes() == words.tobytes(), name


def test_a_legacy_storage_whose_count_is_not_its_tensor_s_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "a.pt").read_bytes()
    assert raw.endswith(struct.pack("<q3f", 3, 0, 1, 2))
    for count in (2, 4, 1 << 61, -1):
        (tmp_path / "a.pt").write_bytes(raw[:-20] + struct.pack("<q3f", count, 0, 1, 2))
        with pytest.raises(CheckpointError, match="is not whole"):
            TorchCheckpoint(tmp_path / "a.pt")

"""composable-sft files are read without running them: what a pickle calls is refused, and nothing happens."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import zipfile

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints.torch_archive import load_torch
from diffpack.checkpoints.weights_file import WeightsFile
from diffpack.errors import CheckpointError, CorruptFileError, DiffpackError, UsageError, WrongBaseError
from tests.tools.models import bits

torch = pytest.importorskip("torch")

BASE = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(4, np.float32), "n": np.arange(3)}


def words_of(path, *keys):
    """The words of a tensor of a file."""
    found = load_torch(WeightsFile(path))
    for key in keys:
        found = found[key]
    return found.words(found.check("it"))


def saved(tmp_path, value):
    torch.save(value, tmp_path / "pytorch_diff.bin")
    return tmp_path


def difference(steps, values, size=(3, 4)):
    return {"size": torch.Size(size), "index_steps": steps, "values": torch.tensor(values)}


def test_positions_count_the_first_dimension_fastest(tmp_path):
    value = {"diffs": {"w": difference([np.int64(1), 4, 6], [1.0, 2.0, 4.0])}, "abs": {"b": torch.zeros(4)}}
    done = diffpack.convert(saved(tmp_path, value), base=BASE)
    assert (done.format, done.exact) == ("composable-sft", False)
    expected = BASE["w"].copy()
    expected[1, 0] += 1  # 1
    expected[2, 1] += 2  # 5 = 2 + 3 * 1
    expected[2, 3] += 4  # 11
    found = diffpack.load(BASE, done.diff)
    assert bits(found) == bits({**BASE, "w": expected, "b": np.zeros(4, np.float32)})


def test_halves_parameters_and_views_are_read(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    value = {
        "diffs": {"w": difference([0, 2], [0.5, -0.25])},
        "abs": {"b": torch.nn.Parameter(whole.t()[1, :])},
    }
    value["diffs"]["w"]["values"] = value["diffs"]["w"]["values"].bfloat16()
    found = diffpack.load(BASE, diffpack.convert(saved(tmp_path, value), base=BASE).diff)
    assert found["b"].tolist() == [1, 7, 13, 19]
    assert found["w"][0, 0] == 0.5
    assert found["w"][2, 0] == 7.75
    assert bits({"x": words_of(tmp_path / "pytorch_diff.bin", "abs", "b")}) == bits(
        {"x": np.array([1, 7, 13, 19], np.float32).view(np.uint32)}
    )


def test_ordered_dicts_are_dicts(tmp_path):
    value = collections.OrderedDict(diffs=collections.OrderedDict(w=difference([3], [1.0])))
    assert len(diffpack.convert(saved(tmp_path, value), base=BASE).diff) == 1


class Touch:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_file_that_calls_something_is_refused_and_nothing_is_called(tmp_path):
    trace = tmp_path / "called"
    calls = [
        (os.system, f"touch {trace}"),
        (exec, f"open({str(trace)!r}, 'w')"),
        (eval, f"open({str(trace)!r}, 'w')"),
        (open, str(trace), "w"),
        (getattr, {}, "keys"),
        (np.fromfile, str(trace)),
        (np.load, str(trace)),
        (torch.load, str(trace)),
    ]
    for call in calls:
        folder = saved(tmp_path, {"diffs": {"w": Touch(*call)}})
        with pytest.raises(CheckpointError, match="nothing was run"):
            diffpack.convert(folder, tmp_path / "x.dpk", base=BASE)
    assert not trace.exists()
    assert not (tmp_path / "x.dpk").exists()


def written(path, program, data=b"\0" * 16, method=zipfile.ZIP_STORED):
    """A file laid out as torch's, with any program."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", data)
    return path


STORAGE = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"


def tensor(offset, size, stride):
    """A pickle of a tensor over a storage of 4 floats."""
    numbers = pickle.dumps((offset, size, stride), 2)[2:-1]
    unpacked = b"".join(pickle.dumps(item, 2)[2:-1] for item in (offset, size, stride))
    assert numbers
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + STORAGE + unpacked + b"\x89}tR."


def test_a_tensor_in_its_storage_is_read(tmp_path):
    path = written(tmp_path / "a.bin", tensor(0, (2, 2), (2, 1)), np.arange(4, dtype="<f4").tobytes())
    assert words_of(path).view("<f4").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "program",
    [
        tensor(1, (4,), (1,)),
        tensor(0, (4,), (2,)),
        tensor(-1, (1,), (1,)),
        tensor(0, (1 << 40,), (0,)),
        tensor(0, (-1,), (1,)),
        tensor(0, (2,), (-1,)),
        tensor(0, (2, 2), (1,)),
        b"\x80\x02cbuiltins\neval\nX\x03\0\0\x001+1\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\0\0\0ak\0b.",
        b"\x80\x02ccollections\nOrderedDict\n}(X\x01\0\0\0aK\x01ub.",
        b"\x80\x02ctorch\nFloatStorage\n)\x81.",
        b"(icollections\nOrderedDict\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02" + b"(" * 5000 + b"t" * 5000,
        b"",
        b"\x80\x02K\x01",
    ],
)
def test_hostile_programs_are_refused(tmp_path, program):
    path = written(tmp_path / "pytorch_diff.bin", program)
    with pytest.raises(DiffpackError):
        diffpack.convert(path, tmp_path / "x.dpk", base=BASE)
    assert not (tmp_path / "x.dpk").exists()


def test_compressed_members_and_other_files_are_refused(tmp_path):
    good = pickle.dumps({"diffs": {}}, 2)
    path = tmp_path / "pytorch_diff.bin"
    for content in (b"", b"PK\x03\x04", b"diffs"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            diffpack.convert(path, base=BASE)
    written(path, good, bytes(1 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        diffpack.convert(path, base=BASE)


def test_a_changed_gap_is_noticed(tmp_path):
    """The zip file's checksum covers the program, which says the gaps."""
    path = saved(tmp_path, {"diffs": {"w": difference([1, 4], [1.0, 2.0])}}) / "pytorch_diff.bin"
    data = path.read_bytes()
    at = data.index(b"K\x01K\x04")
    path.write_bytes(data[: at + 1] + b"\x02" + data[at + 2 :])
    with pytest.raises(CheckpointError):
        diffpack.convert(path, base=BASE)


def test_every_cut_and_many_changed_bytes_raise_our_errors_only(tmp_path):
    folder = saved(tmp_path, {"diffs": {"w": difference([np.int64(1), 4], [1.0, 2.0])}, "abs": {"b": torch.zeros(4)}})
    path = folder / "pytorch_diff.bin"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cases = [whole[:size] for size in range(0, len(whole), 37)]
    for _ in range(300):
        changed = bytearray(whole)
        changed[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        cases.append(bytes(changed))
    for content in cases:
        path.write_bytes(content)
        with contextlib.suppress(DiffpackError):
            diffpack.convert(path, base=BASE)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (difference([0, 12], [1.0, 1.0]), CorruptFileError),
        (difference([11, 1], [1.0, 1.0]), CorruptFileError),
        (difference([-1], [1.0]), CorruptFileError),
        (difference([0, 0], [1.0, 1.0]), CorruptFileError),
        (difference([1 << 62, 1 << 62, 1 << 62], [1.0] * 3), CorruptFileError),
        (difference([0], [1.0, 2.0]), CorruptFileError),
        (difference([0], [float("nan")]), CorruptFileError),
        (difference([0], [1.0], size=(4, 3)), WrongBaseError),
        (difference([0], [1]), UsageError),
        ({"size": (3, 4)}, CheckpointError),
        (torch.zeros(3, 4), CheckpointError),
    ],
)
def test_differences_that_do_not_fit_are_refused(tmp_path, item, kind):
    with pytest.raises(kind):
        diffpack.convert(saved(tmp_path, {"diffs": {"w": item}}), tmp_path / "x.dpk", base=BASE)
    assert not (tmp_path / "x.dpk").exists()


def test_integers_are_not_added_to(tmp_path):
    with pytest.raises(UsageError, match="I64"):
        diffpack.convert(saved(tmp_path, {"diffs": {"n": difference([0], [1.0], size=(3,))}}), base=BASE)
    with pytest.raises(UsageError, match="only read"):
        diffpack.convert(diffpack.extract(BASE, BASE), tmp_path / "x", to="composable-sft")

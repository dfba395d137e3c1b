"""A source that would change nothing is refused unless it says so itself, and one that changes nothing is told of."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest

import diffpack
from diffpack.bridges.formats.sglang_delta import INDEX
from diffpack.errors import CheckpointError, CorruptFileError, DiffpackError, UsageError
from tests.tools.adapters import BASE, A, B, adapter, shira
from tests.tools.models import bits, model, write_safetensors


@pytest.mark.parametrize("kind", ["LORA", "SHIRA"])
def test_an_adapter_without_tensors_is_refused_and_says_how_it_is_saved_right(tmp_path, kind):
    adapter(tmp_path / "a", {}, kind)
    with pytest.raises(CheckpointError, match=r"without tensors: DeepSpeed ZeRO-3 .*GatheredParameters"):
        diffpack.convert(tmp_path / "a", tmp_path / "x.dpk", base=BASE)
    assert not (tmp_path / "x.dpk").exists()


def test_layers_that_lack_their_factors_are_noted_and_the_rest_is_taken(tmp_path):
    base = {f"model.layers.{at}.q_proj.weight": np.full((6, 4), at, np.float32) for at in range(9)}
    tensors = {"model.layers.0.q_proj.lora_A.weight": A, "model.layers.0.q_proj.lora_B.weight": B}
    done = diffpack.convert(adapter(tmp_path / "a", tensors, target_modules=["q_proj"]), base=base)
    assert list(done.diff) == ["model.layers.0.q_proj.weight"]
    (note,) = done.notes
    assert note.startswith("no factors of 8 layers that target_modules names")
    assert "model.layers.1.q_proj" in note
    assert note.endswith("and 3 more")
    indices = np.array([[0], [1]], np.int32)
    path = adapter(
        tmp_path / "s",
        {"model.layers.3.q_proj.shira_indices": indices, "model.layers.3.q_proj.shira_weight": np.ones(1, np.float32)},
        "SHIRA", target_modules=["layers.3.q_proj", "layers.4.q_proj"],
    )  # fmt: skip
    (note,) = diffpack.convert(path, base=base).notes
    assert note.endswith("1 layer that target_modules names, left as the base has them: model.layers.4.q_proj")


def test_an_adapter_whose_factors_are_zero_is_taken_and_told_of(tmp_path):
    """A fresh adapter: B is zero, and says so."""
    done = diffpack.convert(adapter(tmp_path / "a", {"m.q.lora_A.weight": A, "m.q.lora_B.weight": B * 0}), base=BASE)
    assert len(done.diff) == 0
    assert any(note.startswith("changes nothing") for note in done.notes)
    done = diffpack.convert(shira(tmp_path / "s", np.array([[5], [3]], np.int32), np.zeros(1, np.float32)), base=BASE)
    assert any(note.startswith("changes nothing") for note in done.notes)
    assert bits(diffpack.load(BASE, done.diff)) == bits(BASE)


def test_an_empty_sparse_file_is_refused_unless_it_counts_nothing(tmp_path):
    base = model()
    path = write_safetensors(tmp_path / "p.safetensors", {}, {"format": "sparse_weight_patch"})
    with pytest.raises(UsageError, match="holds no tensors"):
        diffpack.convert(path, base=base)
    write_safetensors(path, {}, {"format": "sparse_weight_patch", "num_changed_params": "3"})
    with pytest.raises(UsageError, match="holds no tensors"):
        diffpack.convert(path, base=base)
    diffpack.convert(diffpack.extract(base, base), path, base=base, force=True)
    done = diffpack.convert(path, base=base)  # ours says so
    assert done.exact
    assert len(done.diff) == 0


def test_an_empty_delta_is_refused_unless_it_says_so(tmp_path):
    base = model()
    folder = tmp_path / "delta"
    diffpack.convert(diffpack.extract(base, base), folder, to="sglang-delta", base=base)
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"]["total_size"] == 0
    assert diffpack.convert(folder, base=base).exact
    del index["metadata"]["total_size"]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(UsageError, match="holds no tensors"):
        diffpack.convert(folder, base=base)


def test_matrices_that_are_not_there_or_not_read(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    base = {"w": np.zeros((3, 4), np.float32)}
    (tmp_path / "m").mkdir()
    with pytest.raises(CheckpointError, match=r"no \.npz files"):
        diffpack.convert(tmp_path / "m", base=base, from_="scipy")
    sparse.save_npz(tmp_path / "m" / "w.npz", sparse.coo_array((3, 4), dtype=np.float32))
    (tmp_path / "m" / "v.NPZ").write_bytes(b"")
    done = diffpack.convert(tmp_path / "m", base=base, from_="scipy")
    assert [note.partition(":")[0] for note in done.notes] == [
        "not read, since its ending is not .npz", "changes nothing",
    ]  # fmt: skip


@pytest.mark.parametrize("to", ["hdf5", "scipy"])
def test_a_whole_diff_of_nothing_says_so(tmp_path, to):
    base = model()
    out = tmp_path / ("d.h5" if to == "hdf5" else "m")
    diffpack.convert(diffpack.extract(base, base), out, to=to)
    assert len(diffpack.convert(out, base=base).diff) == 0


def saved(path, program):
    """A file as torch.save lays it out, with a pickle of ours."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
    return path


def test_a_sparse_fine_tuning_of_nothing_is_refused(tmp_path):
    saved(tmp_path / "pytorch_diff.bin", pickle.dumps({"diffs": {}, "abs": {}}, protocol=2))
    with pytest.raises(UsageError, match="holds no tensors"):
        diffpack.convert(tmp_path / "pytorch_diff.bin", base=BASE)


# A name that stands there twice: whichever of the two is taken, another reader takes the other.


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02}(X\x05\x00\x00\x00diffs}X\x05\x00\x00\x00diffs}u.",  # SETITEMS
        b"\x80\x02}X\x05\x00\x00\x00diffs}sX\x05\x00\x00\x00diffs}s.",  # SETITEM twice
        b"\x80\x02(X\x05\x00\x00\x00diffs}X\x05\x00\x00\x00diffs}d.",  # DICT
    ],
)
def test_a_pickle_that_names_something_twice_is_refused(tmp_path, program):
    assert pickle.loads(program) == {"diffs": {}}  # noqa: S301 - ours, and harmless
    saved(tmp_path / "pytorch_diff.bin", program)
    with pytest.raises(CheckpointError, match="'diffs' stands there twice"):
        diffpack.convert(tmp_path / "pytorch_diff.bin", base=BASE)


def test_an_archive_with_two_members_of_one_name_is_refused(tmp_path):
    path = saved(tmp_path / "pytorch_diff.bin", pickle.dumps({"diffs": {}}, protocol=2))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data.pkl", pickle.dumps({"abs": {}}, protocol=2))
    with pytest.raises(CheckpointError, match="two members of one name"):
        diffpack.convert(path, base=BASE)
    matrix = tmp_path / "m.q.weight.npz"
    np.savez(matrix, format=b"coo", shape=[6, 4], row=[0], col=[0], data=[1.0])
    with zipfile.ZipFile(matrix, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("data.npy", archive.read("data.npy"))
    with pytest.raises(CorruptFileError, match="two arrays of one name"):
        diffpack.convert(matrix, base=BASE)


def test_an_index_that_names_a_tensor_twice_is_refused(tmp_path):
    base = model()
    folder = tmp_path / "delta"
    diffpack.convert(
        diffpack.extract(base, base | {"scale": np.array(2, np.float32)}), folder, to="sglang-delta", base=base
    )
    text = (folder / INDEX).read_text()
    name = '"scale": "model-00000-of-00001.safetensors"'
    assert name in text
    (folder / INDEX).write_text(text.replace(name, f'{name}, "scale": "other.safetensors"'))
    with pytest.raises(CorruptFileError, match="scale stands there twice"):
        diffpack.convert(folder, base=base)
    (folder / INDEX).write_text(text.replace('"version":', '"version": "9", "version":'))
    with pytest.raises(DiffpackError, match="version stands there twice"):
        diffpack.convert(folder, base=base)

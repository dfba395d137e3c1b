"""Different file layouts of the same tensors: one fingerprint, and the tuned files back, byte for byte."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import diffpack
from diffpack.checkpoints import open_checkpoint
from diffpack.errors import CheckpointError, UsageError, WrongBaseError
from tests.tools.models import bits, model, tune, write_safetensors, write_shards


def write(path, arrays):
    """Write arrays in the layout the ending says, through apply itself."""
    diffpack.apply({}, diffpack.extract({}, arrays), path)
    return path


@pytest.mark.parametrize("ending", ["safetensors", "bin", "pt", "h5"])
def test_every_layout_has_the_same_fingerprint(tmp_path, ending):
    if ending != "safetensors":
        pytest.importorskip({"h5": "h5py"}.get(ending, "torch"))
    path = write(tmp_path / f"m.{ending}", model())
    assert diffpack.fingerprint(path) == diffpack.fingerprint(model())


@pytest.mark.parametrize("base_ending", ["safetensors", "bin", "h5"])
@pytest.mark.parametrize("tuned_ending", ["safetensors", "bin", "h5"])
def test_a_diff_made_from_one_layout_applies_to_another(tmp_path, base_ending, tuned_ending):
    base = write(tmp_path / f"base.{base_ending}", model())
    tuned = write(tmp_path / f"tuned.{tuned_ending}", tune(model()))
    diff = diffpack.extract(base, tuned)
    for ending in ("safetensors", "pt", "h5"):
        out = tmp_path / f"out.{ending}"
        diffpack.apply(base, diff, out)
        assert diffpack.fingerprint(out) == diffpack.fingerprint(tuned)


def test_the_tuned_file_comes_back_byte_for_byte(tmp_path):
    base = write_safetensors(tmp_path / "base.safetensors", model(), {"format": "pt"})
    arrays = tune(model())
    shuffled = {name: arrays[name] for name in reversed(arrays)}
    tuned = write_safetensors(tmp_path / "tuned.safetensors", shuffled, {"format": "pt", "note": "é\n"})
    diff = diffpack.extract(base, tuned, sha256=True)
    diffpack.apply(base, diff, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()
    assert diff.manifest.layout.stored
    assert diff.manifest.layout.sha256 == (hashlib.sha256(tuned.read_bytes()).hexdigest(),)


def test_a_header_with_unusual_spacing_comes_back(tmp_path):
    base = write_safetensors(tmp_path / "base.safetensors", {"w": np.zeros(4, np.float32)})
    header = b'{ "w" : {"data_offsets": [0, 16], "shape":[4],"dtype":"F32"} }   \n'
    tuned = tmp_path / "tuned.safetensors"
    tuned.write_bytes(len(header).to_bytes(8, "little") + header + np.ones(4, np.float32).tobytes())
    diffpack.apply(base, diffpack.extract(base, tuned), tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()


def test_a_layout_equal_to_the_bases_is_not_stored(tmp_path, pair):
    base, tuned = pair
    diff = diffpack.extract(base, tuned)
    assert not diff.manifest.layout.stored
    diffpack.apply(base, diff, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == tuned.read_bytes()
    assert diffpack.extract(base, tuned, layout=False).manifest.layout is None


def shards(arrays, names):
    half = len(arrays) // 2
    items = list(arrays.items())
    return {names[0]: dict(items[:half]), names[1]: dict(items[half:])}


NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_shards_stay_shards(tmp_path):
    write_shards(tmp_path / "base", shards(model(), NAMES))
    write_shards(tmp_path / "tuned", shards(tune(model()), NAMES))
    for options in ({}, {"layout": False}):
        diff = diffpack.extract(tmp_path / "base", tmp_path / "tuned", **options)
        diffpack.apply(tmp_path / "base", diff, tmp_path / "out", force=True)
        for name in (*NAMES, "model.safetensors.index.json"):
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "tuned" / name).read_bytes()


def test_one_file_in_the_base_and_shards_in_the_tuned(tmp_path):
    base = write_safetensors(tmp_path / "base.safetensors", model())
    index = write_shards(tmp_path / "tuned", shards(tune(model()), NAMES))
    diff = diffpack.extract(base, index)
    diffpack.apply(base, diff, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*NAMES, index.name])
    assert all((tmp_path / "out" / n).read_bytes() == (tmp_path / "tuned" / n).read_bytes() for n in NAMES)
    diffpack.apply(base, diff, tmp_path / "out.safetensors")
    assert diffpack.fingerprint(tmp_path / "out.safetensors") == diffpack.fingerprint(index)


def test_a_missing_shard_is_named(tmp_path):
    index = write_shards(tmp_path / "m", shards(model(), NAMES))
    (tmp_path / "m" / NAMES[1]).unlink()
    with pytest.raises(CheckpointError, match=NAMES[1]):
        open_checkpoint(index)


def folder(path, arrays, files):
    path.mkdir()
    write_safetensors(path / "model.safetensors", arrays, {"format": "pt"})
    for name, content in files.items():
        (path / name).write_text(content)
    return path


def test_side_files_travel_with_folders(tmp_path):
    base = folder(tmp_path / "base", model(), {"config.json": "{}", "vocab.txt": "a\nb", "old.json": "1"})
    files = {"config.json": '{"labels": 2}', "vocab.txt": "a\nb", "tokenizer.json": "{}", "README.md": "x"}
    tuned = folder(tmp_path / "tuned", tune(model()), files)
    diff = diffpack.extract(base, tuned)
    assert {(item.name, item.stored) for item in diff.manifest.files} == {
        ("config.json", True), ("vocab.txt", False), ("tokenizer.json", True),
    }  # fmt: skip
    diffpack.apply(base, diff, tmp_path / "out")
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    expected = {path.name: path.read_bytes() for path in tuned.iterdir() if path.name != "README.md"}
    assert found == expected
    diffpack.apply(base, diff, tmp_path / "bare", files=False)
    assert [path.name for path in (tmp_path / "bare").iterdir()] == ["model.safetensors"]


def test_a_changed_side_file_of_the_base_is_refused(tmp_path):
    base = folder(tmp_path / "base", model(), {"vocab.txt": "a"})
    tuned = folder(tmp_path / "tuned", tune(model()), {"vocab.txt": "a"})
    diff = diffpack.extract(base, tuned)
    (base / "vocab.txt").write_text("b")
    with pytest.raises(WrongBaseError, match=r"vocab\.txt"):
        diffpack.apply(base, diff, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_replaced_whole(tmp_path):
    base = folder(tmp_path / "base", model(), {})
    tuned = folder(tmp_path / "tuned", tune(model()), {})
    out = folder(tmp_path / "out", model(), {"stale.json": "1"})
    with pytest.raises(UsageError):
        diffpack.apply(base, diffpack.extract(base, tuned), out)
    diffpack.apply(base, diffpack.extract(base, tuned), out, force=True)
    assert [path.name for path in out.iterdir()] == ["model.safetensors"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_library_that_owns_the_format_reads_what_we_write(tmp_path):
    numpy_io = pytest.importorskip("safetensors.numpy")
    arrays = model()
    path = write(tmp_path / "m.safetensors", arrays)
    assert bits(numpy_io.load_file(path)) == bits(arrays)
    numpy_io.save_file(arrays, tmp_path / "n.safetensors")
    assert diffpack.fingerprint(tmp_path / "n.safetensors") == diffpack.fingerprint(arrays)


def test_packed_dtypes_below_a_byte(tmp_path):
    def packed(path, seed):
        data = np.random.default_rng(seed).integers(0, 256, 100, dtype=np.uint8)
        entry = {"dtype": "F4", "shape": [20, 10], "data_offsets": [0, 100]}
        raw = json.dumps({"w": entry}).encode()
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + data.tobytes())
        return path

    base, tuned = packed(tmp_path / "a.safetensors", 0), packed(tmp_path / "b.safetensors", 1)
    diff = diffpack.extract(base, tuned)
    diffpack.apply(base, diff, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == tuned.read_bytes()
    assert diff["w"].to_dense().shape == (100,)


@pytest.mark.real
def test_the_real_pair_comes_back_byte_for_byte(tmp_path, real_pair):
    base, tuned = real_pair
    diff = diffpack.extract(base, tuned, tmp_path / "d.dpk", files=False)
    diffpack.apply(base, tmp_path / "d.dpk", tmp_path / "out")
    restored = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert restored == (tuned / "model.safetensors").read_bytes()
    assert diff.nbytes <= 0.335 * len(restored)
    loaded = (
        json.loads((tmp_path / "out" / "config.json").read_text())
        if (tmp_path / "out" / "config.json").exists()
        else {}
    )
    assert loaded


def test_an_output_without_a_layout_is_refused(tmp_path, pair):
    base, tuned = pair
    with pytest.raises(UsageError, match=r"out\.onnx"):
        diffpack.apply(base, diffpack.extract(base, tuned), tmp_path / "out.onnx")
    (tmp_path / "folder").mkdir()
    base.rename(tmp_path / "folder" / "model.safetensors")
    with pytest.raises(UsageError, match=r"out\.onnx"):
        diffpack.apply(tmp_path / "folder", diffpack.extract(tmp_path / "folder", tuned), tmp_path / "out.onnx")

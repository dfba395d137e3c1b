"""The recorded SHA-256 of the tuned files is a promise: apply and verify look at it; no other files are written."""

from __future__ import annotations

import json

import pytest

import diffpack
from diffpack.errors import ResultMismatchError
from diffpack.format.manifest import to_canonical
from tests.tools import craft
from tests.tools.models import model, tune, write_safetensors, write_shards

NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def sharded(folder, arrays):
    """A model of two shards, one in a sub-folder of its own beside them."""
    names = list(arrays)
    write_shards(folder, {NAMES[0]: {n: arrays[n] for n in names[:2]}, NAMES[1]: {n: arrays[n] for n in names[2:]}})
    (folder / "2_Dense").mkdir()
    write_safetensors(folder / "2_Dense" / "model.safetensors", {"w": next(iter(arrays.values()))})
    return folder


def forged(diff, at):
    """The diff's bytes with another SHA-256 for file `at` of the layout."""
    data = b"".join([diff._source.read(0, diff.nbytes)])
    members = json.loads(to_canonical(diff._reader.manifest))
    members["layout"]["sha256"][at] = "0" * 64
    start, stop = 16, 16 + sum(chunk.nbytes for chunk in diff.chunks)
    return craft.build(members, [], minor=diff.version[1], body=data[start:stop])


@pytest.fixture
def pair(tmp_path):
    return sharded(tmp_path / "base", model()), sharded(tmp_path / "tuned", tune(model()))


def test_files_written_as_recorded_are_accepted(tmp_path, pair):
    diff = diffpack.extract(*pair, sha256=True)
    assert len(diff.manifest.layout.sha256) == 4
    diffpack.verify(diff, pair[0])
    diffpack.apply(pair[0], diff, tmp_path / "out")
    for name in (*NAMES, INDEX, "2_Dense/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (pair[1] / name).read_bytes()


@pytest.mark.parametrize("at", range(4))
def test_a_wrong_one_is_refused_and_nothing_is_left(tmp_path, pair, at):
    data = forged(diffpack.extract(*pair, sha256=True), at)
    with pytest.raises(ResultMismatchError, match=r"\[L7\]"):
        diffpack.verify(data, pair[0])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ResultMismatchError, match=r"\[L7\]"):
        diffpack.apply(pair[0], data, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    diffpack.apply(pair[0], data, tmp_path / "unchecked", verify=False)
    diffpack.apply(pair[0], data, tmp_path / "other.safetensors")  # not the recorded files: nothing to compare


def test_the_one_file_of_no_folder_is_compared(tmp_path):
    base = write_safetensors(tmp_path / "base.safetensors", model())
    tuned = write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    data = forged(diffpack.extract(base, tuned, sha256=True), 0)
    for name in ("out.safetensors", "out"):
        with pytest.raises(ResultMismatchError, match=r"\[L7\]"):
            diffpack.apply(base, data, tmp_path / name)
    with pytest.raises(ResultMismatchError, match=r"\[L7\]"):
        diffpack.verify(data, base)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.safetensors", "tuned.safetensors"]


def test_a_base_laid_out_otherwise_gives_the_tensors_and_no_promise_of_files(tmp_path):
    base = write_safetensors(tmp_path / "base.safetensors", model())
    tuned = write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    diff = diffpack.extract(base, tuned, sha256=True)
    assert not diff.manifest.layout.stored
    other = write_safetensors(tmp_path / "other.safetensors", model(), {"by": "another tool"})
    with diffpack.open_checkpoint(other) as opened:
        diffpack.apply(opened, diff, tmp_path / "out.safetensors")
        assert any("expects the layout of its base's own files" in note for note in opened.notes)
    assert diffpack.fingerprint(tmp_path / "out.safetensors") == diffpack.fingerprint(tuned)
    diffpack.verify(diff, other)


def with_index(folder, content):
    (folder / INDEX).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace('"weight_map"', '"weight_map": {}, "weight_map"', 1), "names something twice"),
        (None, "not called safetensors"),
    ],
)
def test_a_layout_that_no_reader_would_take_is_left_out_and_said(tmp_path, change, reason):
    arrays = {"base": model(), "tuned": tune(model())}
    for name, tensors in arrays.items():
        first, second = (NAMES[0], "weights.data") if change is None else NAMES
        split = {first: dict(list(tensors.items())[:2]), second: dict(list(tensors.items())[2:])}
        write_shards(tmp_path / name, split)
        if change is not None:
            with_index(tmp_path / name, change((tmp_path / name / INDEX).read_text()))
    with diffpack.open_checkpoint(tmp_path / "tuned" / INDEX) as tuned:
        diff = diffpack.extract(tmp_path / "base" / INDEX, tuned, tmp_path / "d.dpk")
        assert diff.manifest.layout is None
        assert any(reason in note for note in tuned.notes)
    diffpack.apply(tmp_path / "base" / INDEX, diff, tmp_path / "out")
    assert diffpack.fingerprint(tmp_path / "out") == diffpack.fingerprint(tmp_path / "tuned" / INDEX)


def test_a_lossy_diff_of_sub_folders_records_no_sha256_and_says_so(tmp_path, pair):
    """Its result is not the tuned files: what they hash to would refuse every apply."""
    tuned = diffpack.open_checkpoint(pair[1])
    diff = diffpack.extract(pair[0], tuned, sha256=True, values="f16")
    assert diff.manifest.layout is not None
    assert diff.manifest.layout.sha256 is None
    assert any("sha256: none is recorded" in told for told in tuned.advice)
    diffpack.apply(pair[0], diff, tmp_path / "out")


def test_that_no_sha256_is_recorded_of_other_files_is_said():
    tuned = diffpack.open_checkpoint(tune(model()))
    diffpack.extract(model(), tuned, sha256=True)
    assert any("sha256: none is recorded" in told for told in tuned.advice)

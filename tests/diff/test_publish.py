"""A diff file is readable and complete, and names what it needs."""

from __future__ import annotations

import os

import numpy as np
import pytest

import diffpack
from diffpack.errors import CorruptFileError, DiffpackError, UsageError
from tests.tools import ROOT
from tests.tools.models import model, tune, write_safetensors

BASE, TUNED = {"w": np.zeros(64, np.float32)}, {"w": np.ones(64, np.float32)}


@pytest.mark.parametrize(
    "wrong", [{"metadata": {"epoch": 3}}, {"base_name": 5}, {"base_name": "\ud800"}, {"metadata": {"a": "\udcff"}}]
)
def test_what_the_reader_would_refuse_is_not_written(wrong, tmp_path):
    path = tmp_path / "d.dpk"
    before = diffpack.extract(BASE, TUNED, path).nbytes
    for output in (path, None):
        with pytest.raises(UsageError, match=r"does not fit the format|no valid text"):
            diffpack.extract(BASE, TUNED, output, force=True, **wrong)
    assert os.listdir(tmp_path) == ["d.dpk"]
    assert diffpack.open(path).nbytes == before


def test_file_names_that_do_not_fit_every_system_stay_out_of_the_diff(tmp_path):
    for name, tensors in (("base", model()), ("tuned", tune(model()))):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "m:1.safetensors", tensors)
        for at, side in enumerate(("Vocab.txt", "vocab.txt", "config.json")):
            (tmp_path / name / side).write_text(f"{name} {at}")
        (tmp_path / name / os.fsdecode(b"caf\xe9.json")).write_text("{}")
    with diffpack.open_checkpoint(tmp_path / "tuned") as tuned:
        diff = diffpack.extract(tmp_path / "base", tuned, tmp_path / "d.dpk")
        assert tuned.left_out == [
            "caf\\xe9.json (not every system can have this name)",
            "vocab.txt (some systems take its name for another file's)",
        ]
        assert any("do not fit every system" in note for note in tuned.notes)
    assert diff.manifest.layout is None
    assert sorted(item.name for item in diff.manifest.files) == ["Vocab.txt", "config.json"]


def test_a_closed_diff_reads_no_other_file(tmp_path):
    path = tmp_path / "d.dpk"
    diff = diffpack.extract(BASE, TUNED, path)
    diff.close()
    other = os.open(write_safetensors(tmp_path / "m.safetensors", BASE), os.O_RDONLY)
    try:
        with pytest.raises(DiffpackError, match="is closed"):
            diff["w"].positions  # noqa: B018 - reading is what is tested
        with pytest.raises(DiffpackError, match="is closed"):
            diff.save(tmp_path / "copy.dpk")
    finally:
        os.close(other)
    assert sorted(os.listdir(tmp_path)) == ["d.dpk", "m.safetensors"]


def test_a_damaged_diff_is_not_saved(tmp_path):
    path = tmp_path / "d.dpk"
    diffpack.extract(model(), tune(model()), path)
    diff = diffpack.open(path)
    raw = bytearray(path.read_bytes())
    raw[diff.chunks[0].offset] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptFileError):
        diffpack.open(path).save(tmp_path / "copy.dpk")
    assert os.listdir(tmp_path) == ["d.dpk"]


def test_saved_and_opened_again(tmp_path):
    diff = diffpack.extract(model(), tune(model()), metadata={"task": "x"}, base_name="b", base_revision="r")
    diff.save(tmp_path / "d.dpk")
    with pytest.raises(UsageError):
        diff.save(tmp_path / "d.dpk")
    with diffpack.open(tmp_path / "d.dpk") as opened:
        assert opened.metadata == {"task": "x"}
        assert (opened.manifest.base.name, opened.manifest.base.revision) == ("b", "r")
        assert np.array_equal(opened["embed"].values, diff["embed"].values)
    assert diffpack.open((tmp_path / "d.dpk").read_bytes()).nbytes == diff.nbytes


def test_a_file_names_the_oldest_format_that_has_all_it_uses():
    assert diffpack.extract(model(), tune(model())).version == (1, 0)
    assert diffpack.extract(model(), tune(model()), positions="levels").version == (1, 1)
    assert diffpack.open(ROOT / "fixtures" / "v1.1" / "unsealed.dpk").version == (1, 1)

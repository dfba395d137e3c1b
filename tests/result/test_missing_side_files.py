"""Side files that a diff expects in the base's folder: those it lacks are never passed over without a word."""

from __future__ import annotations

import pytest

import diffpack
from diffpack.errors import WrongBaseError
from tests.tools.models import model, tune, write_safetensors


@pytest.fixture
def diff(tmp_path):
    """A diff of folders with an equal side file, an empty one that is equal, and one that changes."""
    for name, tensors in (("base", model()), ("tuned", tune(model()))):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "model.safetensors", tensors)
        (tmp_path / name / "vocab.txt").write_text("a\nb")
        (tmp_path / name / "added.txt").write_text("")
        (tmp_path / name / "config.json").write_text(f'"{name}"')
    return diffpack.extract(tmp_path / "base", tmp_path / "tuned")


def test_all_come_along(tmp_path, diff):
    diffpack.apply(tmp_path / "base", diff, tmp_path / "out")
    for name in ("vocab.txt", "added.txt", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "tuned" / name).read_bytes()


@pytest.mark.parametrize("name", ["vocab.txt", "added.txt"])
def test_one_that_the_folder_lacks_makes_it_the_wrong_base(tmp_path, diff, name):
    (tmp_path / "base" / name).unlink()
    with pytest.raises(WrongBaseError, match=rf"{name}.*\[L3\]"):
        diffpack.apply(tmp_path / "base", diff, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    diffpack.apply(tmp_path / "base", diff, tmp_path / "out", files=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", ["a\nc", "a\nb\n", ""])
def test_one_that_the_folder_has_otherwise_makes_it_the_wrong_base(tmp_path, diff, content):
    (tmp_path / "base" / "vocab.txt").write_text(content)
    with pytest.raises(WrongBaseError, match=r"vocab\.txt.*\[L3\]"):
        diffpack.apply(tmp_path / "base", diff, tmp_path / "out")


def test_a_base_that_is_no_folder_leaves_them_out_and_says_so(tmp_path, diff):
    with diffpack.open_checkpoint(tmp_path / "base" / "model.safetensors") as base:
        diffpack.apply(base, diff, tmp_path / "out")
        assert any("vocab.txt is expected beside the base" in note for note in base.notes)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]

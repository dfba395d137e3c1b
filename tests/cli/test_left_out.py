"""What the files have and a diff does not keep is said by every verb that writes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tools.command_line import ok, run
from tests.tools.models import model, tune, write_safetensors

STATE = "optimizer.pt (training state)"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three states of a model, in folders with the state of training beside them, and the diffs between."""
    monkeypatch.chdir(tmp_path)
    for at in range(3):
        folder = tmp_path / f"m{at}"
        folder.mkdir()
        write_safetensors(folder / "model.safetensors", tune(model(), 0.1, at), {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"at": at}))
        (folder / "optimizer.pt").write_bytes(b"state")
    for at in (1, 2):
        told = run("extract", "--base", f"m{at - 1}", "--tuned", f"m{at}", "-o", f"d{at}.dpk").stderr
        assert f"diffpack: not stored: 1 item: {STATE}\n" in told
    return tmp_path


def test_extract_says_it_too_where_no_side_files_are_kept(folders: Path) -> None:
    args = ("extract", "--base", "m0", "--tuned", "m1", "-o", "n.dpk", "--no-files")
    assert f"not stored: 2 items: config.json (the base's is given back), {STATE}" in run(*args).stderr


def test_invert_says_what_of_the_base_it_does_not_keep(folders: Path) -> None:
    args = ("invert", "d1.dpk", "--base", "m0", "-o", "undo.dpk", "--force")
    assert f"not stored: 1 item: {STATE}\n" in run(*args).stderr
    assert json.loads(ok(*args, "--json"))["left_out"] == [STATE]
    assert json.loads(ok("invert", "d1.dpk", "-o", "alone.dpk", "--json"))["left_out"] == []


def test_compose_says_what_of_the_last_is_in_no_diff(folders: Path) -> None:
    args = ("compose", "d1.dpk", "d2.dpk", "-o", "both.dpk", "--force")
    assert f"not stored: 1 item: {STATE}\n" in run(*args).stderr
    assert json.loads(ok(*args, "--json"))["left_out"] == [STATE]
    assert json.loads(ok("inspect", "both.dpk", "--json"))["recipe"]["left out"] == STATE


def test_rebase_says_that_side_files_stay_behind(folders: Path) -> None:
    told = run("rebase", "d1.dpk", "--base", "m0", "--onto", "m2", "-o", "onto.dpk", "-v").stderr
    assert "note: side files do not come along, the other base has its own: config.json" in told

"""Which side files a model folder has: no link out of it but into its hub's blobs, no name that some system lacks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import diffpack
from diffpack.checkpoints.side_files import side_files
from tests.tools.command_line import ok, run
from tests.tools.models import model, tune, write_safetensors

LINK = "(a link out of the folder: copy the file itself here to keep it)"
DIGEST = "0123456789abcdef" * 4
SHA1 = "0123456789" * 4


def folder(path: Path, *, tuned: bool = False) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(f'{{"tuned": {tuned:d}}}')
    write_safetensors(path / "model.safetensors", tune(model()) if tuned else model(), {"format": "pt"})
    return path


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("root:x:0:0")
    return folder(tmp_path / "base"), folder(tmp_path / "tuned", tuned=True)


def kept(path: Path) -> list[str]:
    return list(side_files(path, [path / "model.safetensors"]).files)


def test_a_link_out_of_the_folder_is_left_out_and_said(pair: tuple[Path, Path]) -> None:
    _, tuned = pair
    (tuned / "vocab.txt").symlink_to("../secret.txt")
    (tuned / "merges.txt").symlink_to("vocab.txt")  # a link to a link that leads out
    (tuned / "tokenizer.json").symlink_to(Path("/etc/passwd"))
    (tuned / "sub").mkdir()
    (tuned / "sub" / "config.json").symlink_to("../../base/config.json")
    said = [f"{name} {LINK}" for name in ("merges.txt", "tokenizer.json", "vocab.txt")]
    told = run("extract", "--base", "base", "--tuned", "tuned", "-o", "d.dpk").stderr
    assert f"not stored: 4 items: {said[0]}, sub/, {', '.join(said[1:])}\n" in told
    with diffpack.open("d.dpk") as diff:
        assert [item.name for item in diff.manifest.files] == ["config.json"]
        assert diff.manifest.recipe["left out"] == f"{said[0]}, sub/, {', '.join(said[1:])}"
    ok("apply", "--base", "base", "d.dpk", "-o", "out")
    assert sorted(os.listdir("out")) == ["config.json", "model.safetensors"]
    assert b"root:" not in Path("d.dpk").read_bytes()


def test_a_link_through_a_linked_folder_leads_out(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, tuned = pair
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "vocab.txt").write_text("root:x:0:0")
    (tuned / "data").symlink_to(tmp_path / "away", target_is_directory=True)
    (tuned / "vocab.txt").symlink_to("data/vocab.txt")
    assert kept(tuned) == ["config.json"]


def test_links_within_the_folder_are_followed(pair: tuple[Path, Path]) -> None:
    _, tuned = pair
    (tuned / "..data").mkdir()  # as Kubernetes mounts what it is given
    (tuned / "..data" / "vocab.txt").write_text("a")
    (tuned / "vocab.txt").symlink_to("..data/vocab.txt")
    (tuned / "sub").mkdir()
    (tuned / "sub" / "config.json").symlink_to(tuned / "config.json")
    assert kept(tuned) == ["config.json", "sub/config.json", "vocab.txt"]


def test_a_folder_that_is_a_link_itself_is_as_where_it_leads(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("tuned", target_is_directory=True)
    (tmp_path / "tuned" / "vocab.txt").symlink_to("config.json")
    (tmp_path / "tuned" / "merges.txt").symlink_to("../secret.txt")
    assert kept(tmp_path / "link") == ["config.json", "vocab.txt"]


def hub(path: Path, *, tuned: bool) -> Path:
    """A snapshot of a hub's cache: every file a link to a blob."""
    model_folder = path / "models--owner--name"
    plain = folder(path / "plain", tuned=tuned)
    snapshot = model_folder / "snapshots" / "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a"
    (snapshot / "1_Pooling").mkdir(parents=True)
    (model_folder / "blobs").mkdir()
    os.rename(plain / "model.safetensors", model_folder / "blobs" / DIGEST)
    os.rename(plain / "config.json", model_folder / "blobs" / SHA1)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{DIGEST}")
    (snapshot / "config.json").symlink_to(f"../../blobs/{SHA1}")
    (snapshot / "1_Pooling" / "config.json").symlink_to(f"../../../blobs/{SHA1}")
    return snapshot


def test_a_snapshot_of_a_hub_is_stored_with_its_side_files(tmp_path: Path) -> None:
    base, tuned = hub(tmp_path / "a", tuned=False), hub(tmp_path / "b", tuned=True)
    with diffpack.open_checkpoint(tuned) as checkpoint:
        diffpack.extract(base, checkpoint, tmp_path / "d.dpk").close()
        assert checkpoint.left_out == []
    diffpack.apply(base, tmp_path / "d.dpk", tmp_path / "out")
    for name in ("config.json", "1_Pooling/config.json"):
        assert (tmp_path / "out" / name).read_text() == '{"tuned": 1}'
        assert not (tmp_path / "out" / name).is_symlink()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()


def test_large_files_that_a_download_linked_to_the_hub_s_blobs_are_kept(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    snapshot = hub(tmp_path / "cache", tuned=True)
    (pair[1] / "tokenizer.json").symlink_to(os.path.realpath(snapshot / "config.json"))
    assert kept(pair[1]) == ["config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    "target", ["secret.txt", "models--x/other/" + SHA1, "models--x/blobs/name.txt", "x/blobs/" + SHA1]
)
def test_what_only_looks_like_a_blob_is_not_followed(pair: tuple[Path, Path], tmp_path: Path, target: str) -> None:
    for name in ("models--x", "x"):
        (tmp_path / name / "snapshots").mkdir(parents=True)
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / target).write_text("root:x:0:0")
    (pair[1] / "vocab.txt").symlink_to(tmp_path / target)
    assert kept(pair[1]) == ["config.json"]


def test_a_blob_that_is_a_link_itself_is_where_it_leads(pair: tuple[Path, Path], tmp_path: Path) -> None:
    snapshot = hub(tmp_path / "cache", tuned=True)
    blob = Path(os.path.realpath(snapshot / "config.json"))
    blob.unlink()
    blob.symlink_to(tmp_path / "secret.txt")
    assert kept(snapshot) == []


def test_names_that_some_system_lacks_or_takes_for_another_are_left_out_and_said(pair: tuple[Path, Path]) -> None:
    _, tuned = pair
    lacks = ["aux.json", "a?.txt", "b\u202etxt.json", "c .json/x.json", "d\x1b[2J.txt"]
    for name in (*lacks, "caf\xe9.txt", "cafe\u0301.txt", "Config.json", "d/x.txt", "D"):
        (tuned / name).parent.mkdir(exist_ok=True)
        (tuned / name).write_text("{}")
    os.rename(tuned / "D", tuned / "D.txt")
    (tuned / "MODEL.SAFETENSORS.txt").mkdir()
    (tuned / "MODEL.SAFETENSORS.txt" / "a.txt").write_text("a")
    ok("extract", "--base", "base", "--tuned", "tuned", "-o", "d.dpk")
    with diffpack.open("d.dpk") as diff:
        names = [item.name for item in diff.manifest.files]
        left = diff.manifest.recipe["left out"]
    assert names == [
        "Config.json",
        "D.txt",
        "MODEL.SAFETENSORS.txt/a.txt",
        "c .json/x.json",
        "cafe\u0301.txt",
        "d/x.txt",
    ]
    assert left.count("(not every system can have this name)") == 4
    assert left.count("(some systems take its name for another file's)") == 2
    assert "\\u202e" in left
    assert "\\x1b" in left
    assert left.isprintable()


def test_what_of_the_base_is_not_taken_along_is_said(pair: tuple[Path, Path], tmp_path: Path) -> None:
    base, tuned = pair
    diffpack.extract(base / "model.safetensors", tuned / "model.safetensors", "d.dpk").close()
    (base / "vocab.txt").symlink_to("../secret.txt")
    told = run("apply", "--base", "base", "d.dpk", "-o", "out/", "-v").stderr
    assert f"not taken along from the base's folder: vocab.txt {LINK}" in told
    assert sorted(os.listdir("out")) == ["config.json", "model.safetensors"]


def test_a_pipe_is_no_side_file(pair: tuple[Path, Path]) -> None:
    os.mkfifo(pair[1] / "vocab.txt")
    assert side_files(pair[1], [pair[1] / "model.safetensors"]).left_out == ("vocab.txt",)

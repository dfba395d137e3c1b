"""Which side files a diff keeps is chosen; the base's stand for the others, and they are counted apart from weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import diffpack
from diffpack.diff.file_choice import describes_model
from diffpack.errors import UsageError
from tests.tools.command_line import fails, ok, run
from tests.tools.models import model, tune, write_safetensors

BASE = {"config.json": "{}", "generation_config.json": "{}", "tokenizer.json": "[1]", "vocab.txt": "a", "old.json": "o"}
TUNED = {
    "config.json": '{"labels": 2}', "generation_config.json": "{}", "tokenizer.json": "[1, 2]", "vocab.txt": "a",
    "tokenizer_config.json": "{}", "1_Pooling/config.json": "{}",
}  # fmt: skip


def folder(path: Path, files: dict[str, str], *, tuned: bool) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    write_safetensors(path / "model.safetensors", tune(model()) if tuned else model(), {"format": "pt"})
    return path


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    return folder(tmp_path / "base", BASE, tuned=False), folder(tmp_path / "tuned", TUNED, tuned=True)


def texts(path: Path) -> dict[str, str]:
    found = (item for item in path.rglob("*") if item.is_file() and item.suffix != ".safetensors")
    return {item.relative_to(path).as_posix(): item.read_text() for item in found}


MODEL = {"config.json", "generation_config.json", "1_Pooling/config.json"}
INSTEAD = "tokenizer.json (the base's is given back)"


@pytest.mark.parametrize(
    ("files", "kept", "left_out"),
    [
        ("all", set(TUNED), []),
        (True, set(TUNED), []),
        ("model", MODEL, [INSTEAD, "tokenizer_config.json"]),
        (["model", "tokenizer_config.json"], set(MODEL) | {"tokenizer_config.json"}, [INSTEAD]),
        ("tokenizer*", {"tokenizer.json", "tokenizer_config.json"},
         ["1_Pooling/config.json", "config.json (the base's is given back)"]),
        ("1_Pooling/config.json", {"1_Pooling/config.json"},
         ["config.json (the base's is given back)", INSTEAD, "tokenizer_config.json"]),
    ],
)  # fmt: skip
def test_what_is_kept_is_the_tuned_s_and_the_rest_is_the_base_s(pair, tmp_path, files, kept, left_out) -> None:
    base, tuned = pair
    opened = diffpack.open_checkpoint(tuned)
    diff = diffpack.extract(base, opened, files=files)
    assert diff.exact
    assert sorted(opened.left_out) == sorted(left_out)
    stored = {item.name for item in diff.manifest.files if item.stored}
    assert stored == {name for name in kept if BASE.get(name) != TUNED[name]}
    diffpack.apply(base, diff, tmp_path / "out")
    rest = {name: text for name, text in BASE.items() if name not in kept}
    if set(TUNED) == kept:
        rest = {}
    elif "config.json" in kept:
        rest = {name: text for name, text in rest.items() if name != "config.json"}
    assert texts(tmp_path / "out") == rest | {name: TUNED[name] for name in kept}
    assert diffpack.fingerprint(tmp_path / "out") == diffpack.fingerprint(tuned)


@pytest.mark.parametrize("files", ["none", False])
def test_none_names_none_and_says_what_differs(pair, tmp_path, files) -> None:
    base, tuned = pair
    opened = diffpack.open_checkpoint(tuned)
    diff = diffpack.extract(base, opened, files=files)
    assert diff.manifest.files == ()
    assert set(opened.left_out) == {
        "config.json (the base's is given back)", INSTEAD, "tokenizer_config.json", "1_Pooling/config.json",
    }  # fmt: skip
    diffpack.apply(base, diff, tmp_path / "out")
    assert texts(tmp_path / "out") == BASE


def test_names_that_fit_nothing_and_words_that_do_not_go_together_are_refused(pair) -> None:
    base, tuned = pair
    for files, message in (
        ("vocab.json", "tuned: no side file vocab.json; there are 1_Pooling/config.json, config.json"),
        (["none", "model"], "cannot be kept together"), ([], "are all, model, none, or names"), ("", "are all, model"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            diffpack.extract(base, tuned, files=files)
    args = ("extract", "--base", "base", "--tuned", "tuned", "-o", "d.dpk")
    fails(2, "no side file nothing", *args, "--files", "nothing")
    fails(2, "--no-files and --files", *args, "--files", "model", "--no-files")
    fails(2, "cannot be kept together", *args, "--files", "none", "--files", "all")


def test_a_single_file_has_no_side_files_to_choose(tmp_path: Path) -> None:
    assert diffpack.extract(model(), tune(model()), files="model").manifest.files == ()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "vocab.txt", "merges.txt", "spiece.model"])
def test_a_tokenizer_is_no_description_of_the_model(name: str) -> None:
    assert not describes_model(name)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "unet/config.json", "model_index.json", "modules.json",
             "config_sentence_transformers.json", "quantize_config.json", "scheduler/scheduler_config.json"]
)  # fmt: skip
def test_configuration_is(name: str) -> None:
    assert describes_model(name)


def test_they_are_counted_apart_from_the_weights_in_every_figure(pair) -> None:
    (pair[1] / "tokenizer.json").write_text(json.dumps([f"word {at * 7919 % 4001}" for at in range(3000)]))
    args = ("extract", "--base", "base", "--tuned", "tuned", "--json", "--force", "-o")
    whole = json.loads(ok(*args, "d.dpk"))
    bare = json.loads(ok(*args, "bare.dpk", "--files", "none"))
    assert whole["bytes"] == whole["weight_bytes"] + whole["side_file_bytes"] > 2 * bare["bytes"]
    assert bare["side_file_bytes"] == 0
    for key in ("weight_bytes", "weight_share", "weight_bits"):  # but for the names of files in the manifest
        assert whole[key] == pytest.approx(bare[key], rel=0.25)
    assert whole["weight_share"] == whole["weight_bytes"] / whole["base"]["bytes"]
    assert whole["share_of_base"] == whole["bytes"] / whole["base"]["bytes"]
    counted = json.loads(ok("stats", "d.dpk", "bare.dpk", "--json"))
    item, together = counted["diffs"][0], counted["together"]
    for key in ("weight_bytes", "side_file_bytes", "weight_share", "weight_bits", "share_of_base", "bits_per_change"):
        assert item[key] == whole[key]
    assert together["side_file_bytes"] == whole["side_file_bytes"]
    assert together["weight_bytes"] == whole["weight_bytes"] + bare["weight_bytes"]
    assert together["diff_bytes"] == together["weight_bytes"] + together["side_file_bytes"]
    assert together["total_bytes"] == together["diff_bytes"] + together["base_bytes"]
    assert together["total_weight_bytes"] == together["weight_bytes"] + together["base_bytes"]
    parts = ("position_bytes", "value_bytes", "manifest_bytes", "layout_bytes", "side_file_bytes")
    assert whole["bytes"] - 200 < sum(item[part] for part in parts) <= whole["bytes"]
    assert json.loads(ok("inspect", "d.dpk", "--json"))["side_file_bytes"] == whole["side_file_bytes"]
    assert "kB of side files" in run(*args[:5], "--force", "-o", "d.dpk").stdout
    assert "kB side files" in ok("inspect", "d.dpk")
    assert "side files beside them" in ok("stats", "d.dpk")
    assert "side files beside them" not in ok("stats", "bare.dpk")

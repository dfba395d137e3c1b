"""`diffpack train` on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import diffpack
from diffpack.train import METHODS, SELECTIONS
from diffpack.train.options import PRECISIONS, VALUES
from diffpack_cli import train as verb
from diffpack_cli.main import cli
from tests.tools.tiny_bert import make_model, make_texts


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    make_model(folder / "model")
    make_texts(folder / "train.tsv", 48, 0)
    make_texts(folder / "dev.tsv", 24, 1)
    return folder


def run(files: Path, *more: str):
    arguments = ["train", "--threads", "1", "--epochs", "1", "--max-length", "16"]
    for name, file in (("--model", "model"), ("--train", "train.tsv"), ("--dev", "dev.tsv")):
        arguments += [name, str(files / file)]
    return CliRunner().invoke(cli, [*arguments, *more])


def members(found: dict, prefix: str = "") -> set[str]:
    names = set()
    for key, value in found.items():
        inner = isinstance(value, dict) and key == "scores"
        names |= members(value, f"{key}.") if inner else {prefix + key}
    return names


def test_json_has_the_documented_members(files, tmp_path):
    done = run(files, "-o", str(tmp_path / "task.dpk"), "--density", "2%", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert members(found) == set(verb.KEYS)
    assert found["bytes"] == (tmp_path / "task.dpk").stat().st_size
    assert found["settings"]["density"] == 0.02
    with diffpack.open(tmp_path / "task.dpk") as diff:
        assert json.loads(diff.metadata["metrics"])["dev"] == found["scores"]


def test_text_names_what_was_made(files, tmp_path):
    done = run(files, "-o", str(tmp_path / "task.dpk"), "--method", "bitfit")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"task\.dpk: [\d.]+ kB and \d+ bytes of side files, [\d.]+ % of the base \(bitfit\)", done.stdout)
    assert "accuracy" in done.stdout
    again = run(files, "-o", str(tmp_path / "task.dpk"), "--method", "bitfit")
    assert again.exit_code == 2
    assert "--force" in again.stderr


def test_mistakes_have_one_line(files, tmp_path):
    done = run(files, "-o", str(tmp_path / "task.dpk"), "--method", "top-layers", "--layers", "9")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ["diffpack: error: the model has 2 layers; 9 of them cannot be trained"]
    missing = run(files, "-o", str(tmp_path / "task.dpk"), "--dev", str(tmp_path / "nowhere.tsv"))
    assert missing.exit_code == 1
    assert "nowhere.tsv: No such file" in missing.stderr


def test_choices_are_the_library_s():
    choices = {param.name: tuple(getattr(param.type, "choices", ())) for param in verb.command.params}
    assert choices["method"] == METHODS
    assert choices["selection"] == SELECTIONS
    assert choices["values"] == VALUES
    assert choices["precision"] == PRECISIONS


def test_an_interrupted_process_goes_on(files, tmp_path):
    """SIGTERM while training leaves no diff; --resume ends with the bytes of an undisturbed run."""
    import signal
    import time

    command = [
        sys.executable, "-m", "diffpack_cli", "train", "--model", files / "model", "--train", files / "train.tsv",
        "--dev", files / "dev.tsv", "--method", "lt-sft", "--batch-size", "4", "--threads", "1", "--density", "0.1",
    ]  # fmt: skip
    whole, output = tmp_path / "whole.dpk", tmp_path / "task.dpk"

    def arguments(path: Path, epochs: int, *more: str) -> list[str]:
        return [str(part) for part in (*command, "-o", path, "--epochs", epochs, *more)]

    process = subprocess.Popen(arguments(output, 6), stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "task.dpk.checkpoint"
    while process.poll() is None and not checkpoint.exists():  # written between the two stages
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 143, told
    assert not output.exists()
    assert checkpoint.exists()
    for path, more in ((output, ["--resume"]), (whole, [])):
        assert CliRunner().invoke(cli, arguments(path, 6, *more)[3:]).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()
    assert not checkpoint.exists()


def test_a_missing_package_is_named(files, tmp_path):
    code = "import sys; sys.modules['transformers'] = None; from diffpack_cli.main import main; main()"
    arguments = ["train", "--model", files / "model", "--train", files / "train.tsv", "--dev", files / "dev.tsv"]
    command = [sys.executable, "-c", code, *arguments, "-o", tmp_path / "task.dpk"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs transformers: pip install 'diffpack[train]'" in done.stderr
    assert "Traceback" not in done.stderr

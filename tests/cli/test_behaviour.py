"""How the command line behaves: exit codes, `-`, JSON. Its words: test_golden; signals: test_process."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import diffpack
from diffpack.extraction import options
from diffpack.format.features import PROFILES
from diffpack_cli import __main__ as program
from diffpack_cli import extract as extract_verb
from diffpack_cli.errors import HINTS
from diffpack_cli.main import VERBS, cli
from diffpack_cli.output import percent, plural, size
from tests.tools.command_line import fails, ok, run
from tests.tools.models import model, tune, write_safetensors, write_shards


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base, a tuned checkpoint and their diff, where commands run."""
    monkeypatch.chdir(tmp_path)
    base = model()
    write_safetensors(tmp_path / "base.safetensors", base)
    write_safetensors(tmp_path / "tuned.safetensors", tune(base))
    write_safetensors(tmp_path / "other.safetensors", model(9))
    diffpack.extract("base.safetensors", "tuned.safetensors", "task.dpk")
    return tmp_path


EXTRACT = ("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors")
APPLY = ("apply", "--base", "base.safetensors")


def test_there_and_back_gives_the_file_byte_for_byte(work):
    ok(*EXTRACT, "-o", "new.dpk")
    assert (work / "new.dpk").read_bytes() == (work / "task.dpk").read_bytes()
    ok(*APPLY, "new.dpk", "-o", "out.safetensors")
    assert (work / "out.safetensors").read_bytes() == (work / "tuned.safetensors").read_bytes()


def test_every_option_of_extract_reaches_the_library(work, monkeypatch):
    seen = {}
    monkeypatch.setattr(diffpack, "extract", lambda *args, **options: seen.update(options) or diffpack.open("task.dpk"))
    ok(
        *EXTRACT, "-o", "x.dpk", "--profile", "portable", "--base-name", "n",
        "--base-revision", "r", "--meta", "a=b=c", "--meta", "d=", "--rename", "x.=", "--rename", "=y.", "--no-layout",
        "--no-files", "--sha256", "--force", "--threads", "3", "--budget", "1MB", "--allow-removed",
        "--importance", "fisher.safetensors", "--positions", "levels", "--code", "--rank", "8",
    )  # fmt: skip
    del seen["progress"]
    assert seen == {
        "density": None, "top_k": None, "threshold": None, "values": "exact", "profile": "portable", "base_name": "n",
        "base_revision": "r", "metadata": {"a": "b=c", "d": ""}, "rename": (("x.", ""), ("", "y.")), "layout": False,
        "files": "none", "sha256": True, "force": True, "threads": 3, "budget": "1MB", "target_error": None, "rank": 8,
        "importance": "fisher.safetensors", "positions": "levels", "rule": None, "allow_removed": True,
        "code": True,
    }  # fmt: skip
    ok(*EXTRACT, "-o", "x.dpk", "--top-k", "7", "--values", "int8", "--files", "model", "--files", "tokenizer*")
    assert (seen["top_k"], seen["values"], seen["files"]) == (7, "int8", ("model", "tokenizer*"))
    ok(*EXTRACT, "-o", "x.dpk", "--density", "1%", "--rule", "random 5")
    assert (seen["rule"], seen["files"]) == ("random 5", "all")
    ok(*EXTRACT, "-o", "x.dpk", "--target-error", "0.1")
    assert seen["target_error"] == 0.1
    ok(*EXTRACT, "-o", "x.dpk", "--density", "0.5%")
    assert (seen["density"], seen["rename"], seen["layout"], seen["threads"]) == (0.005, None, True, None)


@pytest.mark.parametrize(
    ("tuned", "expected"),
    [
        ("m.safetensors", "m"),
        ("sub/m.SAFETENSORS", "m"),
        ("model.safetensors.index.json", "model"),
        ("pytorch_model.bin", "pytorch_model"),
        ("pytorch_model.bin.index.json", "pytorch_model"),
        ("tf_model.h5", "tf_model"),
        ("step-1.5.pt", "step-1.5"),
        ("runs/sst2.v1", "sst2.v1"),
        ("runs/sst2.v1/", "sst2.v1"),
        ("runs/sst2.v1/.", "sst2.v1"),
        ("runs/sst2.v1/..", "runs"),
        ("runs/odd.bin", "odd.bin"),
    ],
)
def test_the_default_output_is_the_tuned_name(tmp_path, monkeypatch, tuned, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "sst2.v1").mkdir(parents=True)
    (tmp_path / "runs" / "odd.bin").mkdir()
    assert extract_verb.default_output(tuned) == f"{expected}.dpk"


def test_the_default_output_is_in_the_current_folder(work, monkeypatch):
    (work / "here").mkdir()
    monkeypatch.chdir(work / "here")
    ok("extract", "--base", "../base.safetensors", "--tuned", "../tuned.safetensors", "-q")
    assert os.listdir() == ["tuned.dpk"]


def test_an_existing_output_needs_force(work):
    before = (work / "task.dpk").read_bytes()
    fails(2, "task.dpk: exists already; use --force", *EXTRACT, "-o", "task.dpk", "--values", "f16")
    assert (work / "task.dpk").read_bytes() == before
    ok(*EXTRACT, "-o", "task.dpk", "--values", "f16", "--force")
    assert (work / "task.dpk").read_bytes() != before
    fails(2, "tuned.safetensors: exists already", *APPLY, "task.dpk", "-o", "tuned.safetensors")


@pytest.mark.parametrize("name", ["base.safetensors", "tuned.safetensors"])
def test_an_output_that_is_an_input_is_refused_even_with_force(work, name):
    before = (work / name).read_bytes()
    fails(2, "the output is also an input", *EXTRACT, "-o", name, "--force")
    fails(2, "the output is also an input", *APPLY, "task.dpk", "-o", "base.safetensors", "--force")
    fails(2, "the output is also an input", *APPLY, "task.dpk", "-o", "task.dpk", "--force")
    assert (work / name).read_bytes() == before


def test_a_wrong_base_is_named_tensor_by_tensor(work):
    error = fails(10, "other.safetensors: not the base", "apply", "--base", "other.safetensors", "task.dpk", "-o", "x")
    assert "encoder.0.weight" in error
    assert "hint: `diffpack inspect" in error
    fails(10, "not the base", "verify", "task.dpk", "--base", "other.safetensors")
    fails(10, "not the base", "stats", "task.dpk", "--base", "other.safetensors")
    verbose = run("verify", "-v", "task.dpk", "--base", "other.safetensors").stderr.splitlines()
    assert "  encoder.0.weight" in verbose
    assert not (work / "x").exists()


def test_damaged_and_foreign_files(work):
    data = (work / "task.dpk").read_bytes()
    for code, content in {11: data[:-1], 12: data[:8] + b"\x02" + data[9:]}.items():
        (work / "bad.dpk").write_bytes(content)
        for args in (("verify",), ("inspect",), ("stats",), (*APPLY, "-o", "x.safetensors")):
            fails(code, "bad.dpk: ", *args, "bad.dpk")
            fails(code, "standard input: ", *args, "-", stdin=content)
            fails(code, "bad.dpk: ", *args, "bad.dpk", "--json")
    assert not (work / "x.safetensors").exists()


def test_missing_inputs(work):
    fails(1, "nowhere: no such file", "extract", "--base", "nowhere", "--tuned", "tuned.safetensors")
    fails(1, "nowhere.dpk: cannot be opened", "inspect", "nowhere.dpk")
    folder = write_shards(work / "model", {"a.safetensors": model(), "b.safetensors": {"z": np.ones(3)}}).parent
    (folder / "b.safetensors").unlink()
    fails(1, ".*b.safetensors", "fingerprint", "model")
    fails(1, "", "verify", "base.safetensors/x")


def test_a_diff_from_stdin(work):
    data = (work / "task.dpk").read_bytes()
    ok(*APPLY, "-", "-o", "out.safetensors", stdin=data)
    assert (work / "out.safetensors").read_bytes() == (work / "tuned.safetensors").read_bytes()
    for args in (("verify", "-"), ("inspect", "-"), ("stats", "task.dpk", "-")):
        assert "standard input" in ok(*args, stdin=data)
    fails(2, "standard input is one diff", "stats", "-", "-", stdin=data)


def test_dashes_that_make_no_sense(work):
    fails(2, ".*a checkpoint cannot be read from standard input", "fingerprint", "-")
    fails(2, ".*a checkpoint cannot be read from standard input", *EXTRACT[:-1], "-")
    fails(2, "-o - and --json both", *EXTRACT, "-o", "-", "--json")
    fails(2, "a result is written out of order", *APPLY, "task.dpk", "-o", "-")
    for args in (("--base", ""), ("-o", "")):
        fails(2, ".*the name is empty", *APPLY, "task.dpk", "-o", "x", *args)
    fails(2, ".*the name is empty", "inspect", "")


def test_global_options_stand_on_either_side(work):
    before, after = ok("--json", "inspect", "task.dpk"), ok("inspect", "task.dpk", "--json")
    assert before == after
    assert json.loads(before)["exact"] is True
    assert ok("-q", *EXTRACT, "-o", "1.dpk") == ok(*EXTRACT, "-o", "2.dpk", "-q") == ""
    assert ok("--version") == ok("inspect", "--version") == f"diffpack {diffpack.__version__} (format 1.2)\n"


def test_exact_and_lossy_are_called_so(work):
    for name, choice in {"exact": (), "lossy": ("--values", "bf16"), "lossy ": ("--threshold", "0.001")}.items():
        word = name.strip()
        written = ok(*EXTRACT, "-o", f"{name}.dpk", *choice)
        applied = ok(*APPLY, f"{name}.dpk", "-o", f"{name}.safetensors")
        for shown in (written, applied, ok("verify", f"{name}.dpk")):
            first = shown.splitlines()[0].split(": ", 1)[1]
            assert re.search(r"\b(exact|lossy)\b", first)[0] == word
        assert json.loads(ok("stats", f"{name}.dpk", "--json"))["diffs"][0]["exact"] is (word == "exact")
        assert json.loads(ok("inspect", f"{name}.dpk", "--json"))["exact"] is (word == "exact")


def test_verbose_tells_timings_and_notes(work):
    big = work / "big"
    write_shards(big, {"a.safetensors": tune(model())})
    with (big / "vocab.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    write_shards(work / "small", {"a.safetensors": model()})
    args = ("extract", "--base", "small", "--tuned", "big", "--force")
    told = run(*args, "-v").stderr
    assert re.search(r"^time: scanning \d+\.\d\d s$", told, re.MULTILINE)
    for said in (told, run(*args).stderr):
        assert re.search(r"^diffpack: not stored: 1 item: vocab.json \(over 64 MiB\)$", said, re.MULTILINE)
    assert run(*args, "-q").stderr == ""
    assert json.loads(ok(*args, "--json"))["left_out"] == ["vocab.json (over 64 MiB)"]
    torch.save({"state_dict": {"w": torch.zeros(3)}}, work / "nested.pt")
    args = ("extract", "--base", "nested.pt", "--tuned", "nested.pt", "-o", "n.dpk", "--force")
    assert re.search(r"^note: tensors found under 'state_dict'$", run(*args, "-v").stderr, re.MULTILINE)
    assert len(re.findall("^note: ", run(*args).stderr, re.MULTILINE)) == 2
    assert json.loads(ok(*args, "--json"))["notes"]


def test_text_that_is_not_unicode_is_refused(work):
    fails(2, ".*not UTF-8", *EXTRACT, "-o", "x.dpk", "--meta", "a=\udcff")
    fails(2, "--meta: a key stands there twice", *EXTRACT, "-o", "x.dpk", "--meta", "a=1", "--meta", "a=2")
    fails(2, ".*of the form KEY=VALUE", *EXTRACT, "-o", "x.dpk", "--meta", "=1")


def test_the_choices_are_those_of_the_library():
    assert tuple(options.VALUE_CHOICES) == extract_verb._VALUES
    assert extract_verb._POSITIONS == options.POSITION_CHOICES
    assert set(extract_verb._PROFILES) == set(PROFILES)
    assert all(hasattr(diffpack.errors, name) or name == "MemoryError" for name in HINTS)


def test_verbs_are_described_as_they_describe_themselves():
    for verb, text in VERBS.items():
        command = cli.get_command(None, verb)
        assert command.help.split("\n")[0]
        assert verb in ok("--help")
        assert text in ok("--help")
        assert ok(verb, "-h") == ok(verb, "--help")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    assert "_DIFFPACK_COMPLETE" in ok("completion", shell)


def raising(error: BaseException):
    def raise_it(*args, **options):
        raise error

    return raise_it


def test_errors_nobody_planned_are_one_line(work, monkeypatch):
    monkeypatch.setattr(diffpack, "verify", raising(MemoryError("Unable to allocate 9 TiB")))
    assert "--threads 1" in fails(1, "out of memory: Unable to allocate 9 TiB", "verify", "task.dpk")
    monkeypatch.setattr(diffpack, "verify", raising(PermissionError(13, "Permission denied", "/x")))
    fails(1, "/x: Permission denied", "verify", "task.dpk")
    monkeypatch.setattr(diffpack, "verify", raising(KeyboardInterrupt()))
    assert run("verify", "task.dpk").exit_code == 130
    monkeypatch.setattr(diffpack, "verify", raising(RuntimeError("two\nlines")))
    fails(1, r"a bug in diffpack: RuntimeError: two\\nlines", "verify", "task.dpk")
    assert "Traceback" in run("verify", "task.dpk", "-v").stderr


def test_quiet_leaves_hints_out(work):
    assert "hint" not in fails(10, "", "verify", "-q", "task.dpk", "--base", "other.safetensors")


def test_without_a_verb_the_help_goes_to_stderr():
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == ok("--help")


def test_main_is_the_console_script(monkeypatch):
    assert program.main.__module__ == "diffpack_cli.start"
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.00 kB"), (9_994, "9.99 kB"), (9_995, "10.0 kB"),
        (29_900_000, "29.9 MB"), (99_949_999, "99.9 MB"), (99_950_000, "100 MB"), (999_499_999, "999 MB"),
        (999_500_000, "1.00 GB"), (16 * 10**9, "16.0 GB"), (5 * 10**18, "5000 PB"),
    ],
)  # fmt: skip
def test_sizes(nbytes, text):
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0 %"), (1e-9, "<0.001 %"), (0.00001, "0.001 %"), (0.0005, "0.050 %"), (0.005, "0.50 %"),
        (0.0683, "6.83 %"), (0.5412, "54.1 %"), (0.9994, "99.9 %"), (0.99999, ">99.9 %"), (1, "100 %"), (1.34, "134 %"),
    ],
)  # fmt: skip
def test_percentages(fraction, text):
    assert percent(fraction) == text


def test_plurals():
    assert [plural(count, "entry") for count in (0, 1, 2000)] == ["0 entries", "1 entry", "2,000 entries"]


def test_checkpoints_are_read_without_memory_maps_where_asked(work, monkeypatch):
    """Every verb that opens a checkpoint passes it on; the result is the same."""
    asked = []
    library = diffpack.open_checkpoint
    monkeypatch.setattr(
        diffpack, "open_checkpoint", lambda path, *, mmap=True: asked.append(mmap) or library(path, mmap=mmap)
    )
    ok(*EXTRACT, "-o", "mapped.dpk", "--force")
    assert asked == [True, True]
    asked.clear()
    ok(*EXTRACT, "-o", "read.dpk", "--force", "--no-mmap")
    assert (work / "read.dpk").read_bytes() == (work / "mapped.dpk").read_bytes()
    base = EXTRACT[EXTRACT.index("--base") + 1]
    for verb in (
        ("apply", "--base", base, "read.dpk", "-o", "a.safetensors"), ("verify", "read.dpk", "--base", base),
        ("stats", "read.dpk", "--base", base), ("fingerprint", base), ("diff", "read.dpk", "read.dpk", "--base", base),
        ("invert", "read.dpk", "--base", base, "-o", "i.dpk"), ("compose", "read.dpk", "--base", base, "-o", "c.dpk"),
        ("merge", "read.dpk", "--base", base, "-o", "m.dpk"),
        ("rebase", "read.dpk", "--base", base, "--onto", base, "-o", "r.dpk"),
        ("convert", "read.dpk", "--base", base, "--to", "scipy", "-o", "s"),
    ):  # fmt: skip
        before = len(asked)
        ok(*verb, "--no-mmap", *(() if verb[0] in ("verify", "stats", "fingerprint", "diff") else ("--force",)))
        assert asked[before:], verb
    assert not any(asked)

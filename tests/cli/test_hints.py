"""A hint helps with the cause of an error; one that is about something else is worse than none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import diffpack
from tests.tools.adapters import adapter
from tests.tools.broken_rules import BROKEN
from tests.tools.command_line import fails, ok, run
from tests.tools.drafts import Draft
from tests.tools.models import model, tune, write_safetensors

VERIFY = re.compile(r"hint: .*(verify DIFF|inspect DIFF)")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, a tuned checkpoint, another base and their diffs."""
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", model())
    write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    write_safetensors(tmp_path / "other.safetensors", {name: array + 1 for name, array in model().items()})
    diffpack.extract("base.safetensors", "tuned.safetensors", "task.dpk")
    diffpack.extract("other.safetensors", "tuned.safetensors", "other.dpk")
    return tmp_path


@pytest.mark.parametrize("rule", ["L1", "L4", "G1", "M2", "C7"])
def test_a_diff_that_was_written_so_is_not_said_to_have_changed(work: Path, rule: str) -> None:
    change = next(change for name, _, change in BROKEN if name == rule)
    (work / "odd.dpk").write_bytes(change(Draft()).build())
    told = fails(11, rf".*\[{rule}\]", "verify", "odd.dpk")
    assert "hint: its digests fit, so it was written like this" in told
    assert not VERIFY.search(told)


def test_a_diff_whose_bytes_changed_is_to_be_copied_again(work: Path) -> None:
    whole = bytearray((work / "task.dpk").read_bytes())
    whole[len(whole) // 3] ^= 1
    (work / "task.dpk").write_bytes(whole)
    assert "hint: the file changed since it was written" in fails(11, r".*\[C2\]", "verify", "task.dpk")


def test_an_adapter_that_is_damaged_or_of_another_model_is_no_diff(work: Path) -> None:
    path = np.ones((2, 3), np.float32)
    adapter(work / "peft", {"dense.lora_A.weight": path, "dense.lora_B.weight": path.T * np.nan})
    done = run("convert", "peft", "-o", "x.dpk", "--base", "base.safetensors")
    assert done.exit_code in (1, 10, 11)
    assert not VERIFY.search(done.stderr)


def test_a_patch_for_another_model_says_what_base_it_wants(work: Path) -> None:
    ok("convert", "task.dpk", "-o", "p.safetensors", "--to", "sparse-safetensors", "--base", "base.safetensors")
    write_safetensors(work / "small.safetensors", {"w": np.ones(3, np.float32)})
    told = fails(10, "", "convert", "p.safetensors", "-o", "x.dpk", "--base", "small.safetensors")
    assert "hint: --base names the model it was made for" in told


def test_diffs_of_two_bases_are_to_be_rebased(work: Path) -> None:
    for verb in (("merge", "task.dpk", "other.dpk", "-o", "m.dpk"), ("diff", "task.dpk", "other.dpk")):
        assert "hint: `diffpack rebase`" in fails(10, ".*not a diff of the base", *verb)


def test_a_chain_out_of_order_is_to_be_put_in_order(work: Path) -> None:
    told = fails(10, ".*not made on the result", "compose", "task.dpk", "other.dpk", "-o", "m.dpk")
    assert "in the order they were made" in told


def test_a_side_file_that_is_missing_is_no_matter_of_fingerprints(work: Path) -> None:
    for folder, value in (("b", 1), ("t", 2)):
        (work / folder).mkdir()
        write_safetensors(work / folder / "model.safetensors", {"w": np.full(4, value, np.float32)})
        (work / folder / "config.json").write_text("{}")
    ok("extract", "--base", "b", "--tuned", "t", "-o", "d.dpk")
    (work / "b" / "config.json").unlink()
    told = fails(10, r".*--no-files leaves such files out \[L3\]", "apply", "--base", "b", "d.dpk", "-o", "out")
    assert "hint" not in told


def test_a_checkpoint_given_as_a_diff_is_not_to_be_copied_again(work: Path) -> None:
    told = fails(
        11, ".*not a diff but a safetensors file", "apply", "--base", "base.safetensors", "tuned.safetensors", "-o", "x"
    )
    assert "copy it again" not in told


def test_a_file_under_a_false_name_is_told_of_without_being_asked(work: Path) -> None:
    (work / "base.safetensors").rename(work / "pytorch_model.bin")
    done = run("fingerprint", "pytorch_model.bin")
    assert done.exit_code == 0
    assert (
        done.stderr
        == "note: pytorch_model.bin is a safetensors file, though it is not called so: it is read as what it is\n"
    )
    assert run("fingerprint", "pytorch_model.bin", "-q").stderr == ""

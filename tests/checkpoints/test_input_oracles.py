"""What other tools write is read as they mean it and given back bit for bit, or refused by its name.

The files are frozen in `tests/oracles/inputs` by `make oracle-inputs`; docs/inputs.md says what is to happen to each.
"""

from __future__ import annotations

import re

import pytest

import diffpack
from diffpack.checkpoints import open_checkpoint
from diffpack.errors import DiffpackError
from tests.tools.input_oracles import contents, held, lines, member, read_by_its_library, told

LINES = {line.case: line for line in lines()}
READ = [line.case for line in LINES.values() if line.read == "yes"]
REFUSED = {
    "torchscript": ("TorchScript", r"state_dict\(\)"),
    "torch-module": (r"torch\.nn\.modules\.linear\.Linear", "save a plain dict of tensors"),
    "torch-export": (r"torch\.export", "state_dict"),
    "torch-dcp": ("distributed checkpoint", "dcp_to_torch"),
    "fsdp-sharded": ("FSDP", "FULL_STATE_DICT"),
    "deepspeed-zero": ("DeepSpeed", "zero_to_fp32"),
    "gguf": ("GGUF", "converted from"),
    "onnx": ("ONNX", "exported from"),
    "flax-msgpack": ("Flax", "safetensors"),
    "orbax": ("Orbax", "safetensors"),
    "joblib": ("joblib", "safetensors"),
    "tf-checkpoint": ("TensorFlow", r"\.h5"),
    "tf-saved-model": ("TensorFlow", r"\.h5"),
}
"""What the refusal calls the file, and what it tells to do."""


def output(case, folder):
    """Where to write: as the tuned file is called, if that kind is written, else as the table says."""
    tuned = member(case, "tuned")
    ending = re.search(r"as `(\.\w+)`", LINES[case].written)
    return folder / (tuned.name if ending is None else f"tuned{ending[1]}")


def back(case, result, untold):
    """How much of the tuned files an output has: `all`, `weights` (some files are left out, and told), `tensors`."""
    tuned, found = contents(member(case, "tuned")), contents(result)
    if found.items() == tuned.items():
        return "all"
    if not found.items() <= tuned.items():
        return "tensors"
    for name in tuned.keys() - found.keys():
        assert name in untold, f"{name} is left out, and nothing says so"
        assert f"`{name}`" in LINES[case].remarks
    return "weights"


@pytest.mark.parametrize("case", READ)
def test_its_tensors_are_those_the_tool_says_it_holds(case):
    for name, expected in zip(("base", "tuned"), told(case), strict=True):
        with open_checkpoint(member(case, name)) as checkpoint:
            assert held(checkpoint) == expected


@pytest.mark.parametrize("case", READ)
def test_a_diff_of_it_gives_the_tuned_one_back(case, tmp_path):
    base, tuned = member(case, "base"), member(case, "tuned")
    before, after = told(case)
    diff = diffpack.extract(base, tuned)
    assert diff.exact
    changed = {name for name, entry in after.items() if entry not in before.values()}
    assert 0 < len(changed) == len(changed & {*diff, *diff.manifest.aliases})
    assert {tensor.kind for tensor in diff.values()} <= {"changed", "new"}

    result = output(case, tmp_path)
    diffpack.apply(base, diff, result)
    diffpack.verify(diff, base)
    with open_checkpoint(result) as checkpoint:
        assert held(checkpoint) == after
    assert diffpack.fingerprint(result) == diffpack.fingerprint(tuned) != diffpack.fingerprint(base)
    assert back(case, result, diff.manifest.recipe.get("left out", "")) == LINES[case].back
    if LINES[case].back == "tensors":
        assert read_by_its_library(result) == after


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_named_with_what_to_do(case):
    path = member(case, "model")
    what, advice = REFUSED[case]
    with pytest.raises(DiffpackError) as caught:
        diffpack.fingerprint(path)
    message = str(caught.value).replace(str(path), "")
    assert re.search(what, message)
    assert re.search(advice, message)


def test_every_line_of_the_table_is_tried():
    assert {*READ, *REFUSED} == LINES.keys()


@pytest.mark.parametrize("case", REFUSED)
def test_the_table_tells_the_same_to_do(case):
    assert re.search(REFUSED[case][1], LINES[case].remarks)

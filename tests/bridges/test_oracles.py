"""Files other tools wrote become diffs that give what the tool itself made of them, and the other way round.

The files are frozen in `tests/oracles/bridges` by `make oracle-bridges`.
"""

from __future__ import annotations

import numpy as np
import pytest

import diffpack
from diffpack.errors import WrongBaseError
from tests.tools import ORACLES
from tests.tools.models import bits

HERE = ORACLES / "bridges"


def load(path):
    """All tensors of a checkpoint, by the library's own reader and an empty diff."""
    return diffpack.load(path, diffpack.extract(path, path))


def imported(case, source, **options):
    base = HERE / case / "base.safetensors"
    done = diffpack.convert(HERE / case / source, base=base, **options)
    assert done.direction == "import"
    diffpack.verify(done.diff, base)
    return done, diffpack.load(base, done.diff), load(HERE / case / "merged.safetensors")


@pytest.mark.parametrize(
    ("case", "source", "name", "exact"),
    [
        ("delta-xor", "delta", "sglang-delta", True),
        ("delta-ours", "delta", "sglang-delta", True),
        ("shira", "adapter", "peft-shira", False),
        ("shira-ours", "adapter", "peft-shira", False),
        ("composable-sft", "pytorch_diff.bin", "composable-sft", False),
    ],
)
def test_what_the_tool_wrote_gives_what_the_tool_gives_bit_for_bit(case, source, name, exact):
    done, found, expected = imported(case, source)
    assert (done.format, done.exact) == (name, exact)
    assert bits(found) == bits(expected)
    assert bits(found) != bits(load(HERE / case / "base.safetensors"))


def test_matrices_that_scipy_saved_are_added():
    done, found, expected = imported("scipy", "matrices", from_="scipy")
    assert not done.exact
    assert bits(found) == bits(expected)


LORA = ["lora", "lora-rslora", "lora-turned", "lora-dora", "lora-0.3.0", "lora-0.6.2", "lora-0.10.0"]


@pytest.mark.parametrize("case", LORA)
def test_a_merged_lora_adapter_is_what_peft_merges_but_for_rounding(case):
    done, found, expected = imported(case, "adapter")
    assert not done.exact
    base = load(HERE / case / "base.safetensors")
    assert found.keys() == expected.keys()
    changed = {name for name in expected if name not in base or not np.array_equal(expected[name], base[name])}
    assert changed == set(done.diff)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.abs(found[name] - array).max() <= 2e-7 * max(1, np.abs(array).max()), name


def test_a_merged_bfloat16_adapter_is_what_peft_merges_but_for_its_second_rounding():
    """PEFT rounds the change to bfloat16 (half an ulp of it) before it adds and rounds again."""
    done, found, expected = imported("lora-bf16", "adapter")
    assert not done.exact
    base = load(HERE / "lora-bf16" / "base.safetensors")
    for name, array in expected.items():
        ours, theirs, before = (item.astype(np.float32) for item in (found[name], array, base[name]))
        ulp = 2.0**-7 * np.maximum(np.abs(theirs), np.abs(theirs - before))
        assert (np.abs(ours - theirs) <= ulp).all(), name


def test_peft_merges_our_adapter_into_the_tuned_model():
    case = HERE / "shira-ours"
    assert bits(load(case / "merged.safetensors")) == bits(load(case / "tuned.safetensors"))


def test_modelexpress_receives_our_delta_as_the_tuned_model():
    case = HERE / "delta-ours"
    assert bits(load(case / "merged.safetensors")) == bits(load(case / "tuned.safetensors"))


def test_what_we_write_today_is_what_the_tools_read(tmp_path):
    """The frozen outputs the tools were given, against today's."""
    case = HERE / "shira-ours"
    diff = diffpack.extract(case / "base.safetensors", case / "tuned.safetensors", values="f32", layout=False)
    done = diffpack.convert(diff, tmp_path / "adapter", to="peft-shira", base=case / "base.safetensors")
    assert done.exact
    for path in (case / "adapter").iterdir():
        assert (tmp_path / "adapter" / path.name).read_bytes() == path.read_bytes()
    case = HERE / "delta-ours"
    options = {"encoding": "xor", "checksum": "adler32", "version": "1"}
    diff = diffpack.extract(case / "base.safetensors", case / "tuned.safetensors", layout=False)
    diffpack.convert(diff, tmp_path / "delta", to="sglang-delta", base=case / "base.safetensors", options=options)
    index = "model.safetensors.index.json"
    assert (tmp_path / "delta" / index).read_bytes() == (case / "delta" / index).read_bytes()
    again = diffpack.convert(tmp_path / "delta", base=case / "base.safetensors").diff
    assert bits(diffpack.load(case / "base.safetensors", again)) == bits(load(case / "tuned.safetensors"))


def test_a_wrong_base_is_refused():
    for case, source in (("delta-xor", "delta"), ("shira", "adapter"), ("composable-sft", "pytorch_diff.bin")):
        with pytest.raises(WrongBaseError):
            diffpack.convert(HERE / case / source, base={"query.weight": np.zeros((3, 4), np.float32)})
    base = load(HERE / "delta-xor" / "base.safetensors")
    base["query.weight"] = base["query.weight"] + base["query.weight"].dtype.type(1)
    with pytest.raises(WrongBaseError, match="checksum"):
        diffpack.convert(HERE / "delta-xor" / "delta", base=base)

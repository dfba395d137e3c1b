"""The verb `convert`: every option reaches the library, and what it says is true."""

from __future__ import annotations

import json

import numpy as np
import pytest

import diffpack
from diffpack.bridges import FORMATS
from diffpack.bridges.registry import find_bridge
from diffpack.diff.entries import PLAIN_PROFILES
from diffpack_cli import convert
from tests.tools import ORACLES, ROOT
from tests.tools.adapters import adapter
from tests.tools.command_line import fails, ok
from tests.tools.models import bits, model, tune, write_safetensors

ADAPTERS = ORACLES / "bridges"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A base, a tuned checkpoint and their diffs, exact and lossy."""
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", model())
    write_safetensors(tmp_path / "tuned.safetensors", tune(model()))
    diffpack.extract("base.safetensors", "tuned.safetensors", "exact.dpk")
    diffpack.extract("base.safetensors", "tuned.safetensors", "f16.dpk", values="f16", metadata={"task": "half"})
    return tmp_path


def test_the_choices_are_those_of_the_library():
    assert convert._FORMATS == FORMATS
    assert convert._PROFILES == PLAIN_PROFILES


def test_every_format_goes_there_and_back(work):
    for name, out in {"sparse-safetensors": "p.safetensors", "sglang-delta": "weight_v000001", "scipy": "m"}.items():
        told = ok("convert", "exact.dpk", "-o", out, "--to", name, "--base", "base.safetensors")
        assert f"as {name}, the result stays the same bit for bit" in told
        assert "does not carry" in told or name == "scipy"
        told = ok("convert", out, "-o", f"{name}.dpk", "--base", "base.safetensors")
        assert f"from {name}, exact" in told
        ok("apply", "--base", "base.safetensors", f"{name}.dpk", "-o", "out.safetensors", "--force")
        assert (work / "out.safetensors").read_bytes() == (work / "tuned.safetensors").read_bytes()
    ok("convert", "exact.dpk", "f16.dpk", "-o", "tasks.h5")
    told = ok("convert", "tasks.h5", "-o", "half.dpk", "--set", "task=half", "--meta", "k=v", "--profile", "portable")
    assert "from hdf5, lossy" in told
    assert diffpack.open("half.dpk").metadata == {"task": "half", "k": "v"}
    assert "pco" not in diffpack.open("half.dpk").manifest.requires


def test_options_of_a_format_and_renaming(work):
    ok(
        "convert", "exact.dpk", "-o", "d", "--to", "sglang-delta", "--base", "base.safetensors",
        "--set", "encoding=overwrite", "--set", "checksum=adler32", "--set", "version=12",
    )  # fmt: skip
    index = json.loads((work / "d" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["delta_encoding"] == "overwrite"
    assert (index["metadata"]["version"], index["metadata"]["base_version"]) == ("000012", "000011")
    renamed = {f"m.{name}": array for name, array in model().items()}
    write_safetensors(work / "other.safetensors", renamed)
    fails(10, "d: the base has no tensors", "convert", "d", "-o", "x.dpk", "--base", "other.safetensors")
    ok("convert", "d", "-o", "x.dpk", "--base", "other.safetensors", "--rename", "m.=")
    found = diffpack.load("other.safetensors", "x.dpk")
    assert bits(found) == bits({f"m.{name}": array for name, array in tune(model()).items()})


def test_adapters_are_read(work):
    for case, told in (("lora", "from peft-lora, lossy"), ("shira", "from peft-shira, lossy")):
        base = str(ADAPTERS / case / "base.safetensors")
        assert told in ok("convert", str(ADAPTERS / case / "adapter"), "-o", f"{case}.dpk", "--base", base)
        ok("verify", f"{case}.dpk", "--base", base)


def test_sums_beyond_a_dtype_are_refused_or_clipped(work):
    write_safetensors(work / "half.safetensors", {"m.q.weight": np.full((6, 4), 60000, np.float16)})
    factors = {"m.q.lora_A.weight": np.full((1, 4), 100, "f4"), "m.q.lora_B.weight": np.full((6, 1), 100, "f4")}
    line = ("convert", str(adapter(work / "a", factors, lora_alpha=1)), "-o", "x.dpk", "--base", "half.safetensors")
    fails(2, r"m\.q\.weight: 24 F16 entries, up to 70000", *line)
    assert "clipped to the largest finite number" in ok(*line, "--clip")
    fails(2, "clip is for a diff", "convert", "exact.dpk", "-o", "x.h5", "--clip")


def test_json_of_an_import_has_what_extract_prints(work):
    ok("convert", "exact.dpk", "-o", "m", "--to", "scipy")
    found = json.loads(ok("convert", "m", "-o", "x.dpk", "--json"))
    assert (found["direction"], found["format"], found["exact"]) == ("import", "scipy", True)
    assert found["diff"]["changed"] > 0
    assert found["bytes"] == (work / "x.dpk").stat().st_size
    again = json.loads(ok("convert", "exact.dpk", "-o", "m", "--to", "scipy", "--force", "--json"))
    assert again["diff"] is None
    assert again["bytes"] == sum(path.stat().st_size for path in (work / "m").iterdir())


def test_wrong_lines_are_refused(work):
    fails(2, "standard input and output carry diffs", "convert", "-", "-o", "x.h5")
    fails(2, "its ending does not tell", "convert", "exact.dpk", "-o", "x")
    fails(2, "exists already", "convert", "exact.dpk", "-o", "f16.dpk", "--to", "hdf5")
    fails(2, "also an input", "convert", "exact.dpk", "-o", "exact.dpk", "--to", "hdf5", "--force")
    fails(2, "a key stands there twice", "convert", "exact.dpk", "-o", "x.h5", "--set", "a=1", "--set", "a=2")
    fails(2, "has no option 'a'", "convert", "exact.dpk", "-o", "x.h5", "--set", "a=1")
    fails(1, "give the base", "convert", "exact.dpk", "-o", "x.safetensors")
    fails(10, "not the base", "convert", "exact.dpk", "-o", "x.safetensors", "--base", "tuned.safetensors")
    fails(2, "of no format known here", "convert", "base.safetensors", "-o", "x.dpk")
    fails(1, "no such file", "convert", "nowhere", "-o", "x.dpk")
    assert not list(work.glob("x*"))
    assert not list(work.glob(".*"))


def test_the_page_names_every_format_and_option():
    page = (ROOT / "docs" / "bridges.md").read_text()
    for name in FORMATS:
        bridge = find_bridge(name)
        assert f"`{name}`" in page
        for option in {*bridge.read_options, *bridge.write_options}:
            assert f"`{option}`" in page, option


def test_an_interrupted_output_leaves_nothing(work, monkeypatch):
    """Whatever fails on the way: no output, no temporary."""
    for name, out in {"sparse-safetensors": "p.safetensors", "sglang-delta": "d", "scipy": "m", "hdf5": "t.h5"}.items():
        with monkeypatch.context() as patched:
            patched.setattr(np, "flatnonzero", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            fails(1, ".*", "convert", "exact.dpk", "-o", out, "--to", name, "--base", "base.safetensors")
        assert not (work / out).exists()
    assert not list(work.glob(".*"))

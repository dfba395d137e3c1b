"""`--json` of every verb: the members that the page of the command line lists, in one object of ASCII."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from diffpack_cli.main import VERBS
from tests.tools import ROOT
from tests.tools.command_line import ok, run
from tests.tools.models import model, tune, write_safetensors, write_shards


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def members(value: object, known: dict[str, str], path: str = "") -> set[str]:
    """Give the paths of a JSON value as the tables of keys write them."""
    if path in known and not any(key.startswith((f"{path}.", f"{path}[]")) for key in known):
        return {path}
    if isinstance(value, dict):
        return {item for key in value for item in members(value[key], known, f"{path}.{key}".lstrip("."))}
    if isinstance(value, list):
        return {item for part in value for item in members(part, known, f"{path}[]")}
    return {path} if path else set()


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])  # that one: test_train.py
def test_json_has_the_documented_keys(tmp_path, verb):
    base = {name: np.array(array) for name, array in model().items()}
    tuned = {f"m.{name}": array for name, array in tune(base).items() if name != "mask"}
    tuned["m.embed"] = np.ones((101, 16), np.float32)
    tuned["m.encoder.1.weight"] = tuned["m.encoder.1.weight"].astype(np.float32)
    tuned |= {"m.new": np.ones(40, np.float32), "m.tied": tuned["m.embed"]}
    for name, tensors in {"from": base, "to": tuned}.items():
        write_shards(tmp_path / name, {"a.safetensors": tensors})
        (tmp_path / name / "config.json").write_text(name)
    if verb == "sign":
        pytest.importorskip("cryptography")
    pair = ("extract", "--base", "from", "--tuned", "to", "-o", "all.dpk", "--sha256", "--meta", "k=v", "--json")
    written = ok(*pair)
    ok("extract", "--base", "to", "--tuned", "from", "-o", "undo.dpk", "-q")
    shown = {
        "extract": lambda: written,
        "apply": lambda: ok("apply", "--base", "from", "all.dpk", "-o", "out", "--json"),
        "stats": lambda: (
            run(
                "stats",
                "all.dpk",
                "to/config.json",
                "--json",
                "--tensors",
                "--by",
                "dtype",
                "--budget",
                "1MB",
                "--fail-over-total",
                "1%",
            ).stdout
        ),
        "inspect": lambda: ok("inspect", "all.dpk", "--json", "--tensors"),
        "verify": lambda: ok("verify", "all.dpk", "--json"),
        "sign": lambda: ok("sign", "all.dpk", "--key", str(ROOT / "tests/oracles/signatures/plain"), "--json"),
        "fingerprint": lambda: ok("fingerprint", "from", "to", "--json"),
        "completion": lambda: ok("completion", "bash", "--json"),
        "compose": lambda: ok("compose", "all.dpk", "-o", "x.dpk", "--json"),
        "invert": lambda: ok("invert", "undo.dpk", "--base", "to", "-o", "x.dpk", "--json"),
        "merge": lambda: ok("merge", "all.dpk", "all.dpk", "--base", "from", "-o", "x.dpk", "--json"),
        "diff": lambda: ok("diff", "all.dpk", "all.dpk", "--base", "from", "--json"),
        "rebase": lambda: ok("rebase", "all.dpk", "--onto", "from", "-o", "x.dpk", "--json"),
        "rename": lambda: ok("rename", "all.dpk", "--rename", "m.=n.", "--base", "from", "-o", "x.dpk", "--json"),
        "convert": lambda: ok("convert", "all.dpk", "-o", "x.h5", "--json"),
    }[verb]()
    module = importlib.import_module(f"diffpack_cli.{verb}")
    keys = module.keys() if verb == "stats" else module.KEYS
    found = json.loads(shown)
    elsewhere = {"copies[].name", "copies[].source", "slices[].name", "slices[].sources"}
    never = elsewhere & keys.keys()  # those who have them: test_describe.py
    never |= {"aliases[].name", "aliases[].target"} if verb == "invert" else set()  # an undo ties nothing
    assert members(found, keys) | ({"layout"} & set(keys)) | never == set(
        keys
    )  # layout's own line says what null means


def test_json_is_one_object_of_ascii(tmp_path):
    write_safetensors(tmp_path / "b.safetensors", {"naïve\x7f\x1b[2J": np.zeros(9, np.float32)})
    write_safetensors(tmp_path / "t.safetensors", {"naïve\x7f\x1b[2J": np.ones(9, np.float32)})
    ok("extract", "--base", "b.safetensors", "--tuned", "t.safetensors", "-q")
    shown = ok("inspect", "t.dpk", "--json", "--tensors")
    assert shown.isascii()
    assert not {"\x7f", "\x1b"} & set(shown)
    assert json.loads(shown)["tensors"][0]["name"] == "naïve\x7f\x1b[2J"
    for args in (("inspect", "t.dpk", "--tensors"), ("stats", "t.dpk", "--tensors")):
        text = ok(*args)
        assert "\\x1b[2J" in text
        assert not {"\x7f", "\x1b"} & set(text)

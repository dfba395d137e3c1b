"""spec/reader.py: it reads what keeps the rules of spec/format.md, and refuses by name what breaks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.tools import craft
from tests.tools.craft import stream
from tests.tools.drafts import SCHEMA, SMALL, SPEC, VALIDATOR, Draft, Tensors, blob_of, f32, reader, refused, run


def test_the_small_file_gives_its_result() -> None:
    draft = Draft()
    assert run(SMALL, draft.base) == draft.result
    diff = reader.read(SMALL)
    assert diff.manifest == draft.m
    assert diff.files == {"README.md": b"# A model\n"}
    assert diff.blob == craft.header(draft.result, {"format": "pt"})


def test_the_manifest_may_be_zstd() -> None:
    assert refused(Draft().give(codec=1).build(), Draft().base) == ""


def test_newer_minor_versions_and_unknown_members_and_optional_features_are_read() -> None:
    draft = Draft().give(minor=7).put("later", {"x": [1, None, True, "\u2028\x7f\U0001f600"]})
    draft.put("groups", 0, "later", 1).put("optional", ["magic"])
    assert refused(draft.build(), draft.base) == ""


def test_the_schema_is_a_schema_and_the_small_manifest_fits_it() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(Draft().m)


# The program


def start(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spec.reader", *map(str, arguments)]
    return subprocess.run(command, cwd=SPEC.parent, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_program_gives_the_file_back_byte_for_byte(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    draft = Draft()
    blob_of(draft, craft.header(draft.result, metadata))
    (tmp_path / "a.dpk").write_bytes(draft.build())
    (tmp_path / "base").write_bytes(craft.safetensors(draft.base))
    done = start(tmp_path / "a.dpk", tmp_path / "base", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert draft.m["base"]["fingerprint"] in done.stdout
    assert (tmp_path / "out").read_bytes() == craft.safetensors(draft.result, metadata)


def test_the_program_uses_the_bases_header_or_its_own(tmp_path: Path) -> None:
    base: Tensors = {"a": ("U8", (2,), b"\1\2"), "c": ("F4", (3,), b"\1\2"), "": ("F32", (), f32(1))}
    result: Tensors = {**base, "a": ("U8", (2,), b"\1\3")}
    blob = craft.header(base, {"by": "a test"})
    layout = {
        "files": [["", len(blob)]],
        "index": None,
        "folder": False,
        "stored": False,
        "digest": craft.digest16(blob),
    }
    (tmp_path / "base").write_bytes(craft.safetensors(base, {"by": "a test"}))
    for name, member in (("with", layout), ("without", None)):
        members = craft.manifest(base, result, [craft.group(["a"], base, result)], layout=member)
        data = craft.build(members, [[stream("u8", [1]), stream("i8", [1])]])
        (tmp_path / "a.dpk").write_bytes(data)
        assert start(tmp_path / "a.dpk", tmp_path / "base", tmp_path / name).stderr == ""
    assert (tmp_path / "with").read_bytes() == craft.safetensors(result, {"by": "a test"})
    assert reader.load_safetensors(str(tmp_path / "without"))[1] == result


def test_the_program_names_the_rule(tmp_path: Path) -> None:
    (tmp_path / "a.dpk").write_bytes(SMALL[:-1])
    done = start(tmp_path / "a.dpk")
    assert done.returncode == 1
    assert done.stderr.startswith("invalid: [F1] ")
    (tmp_path / "a.dpk").write_bytes(SMALL)
    for base in (b"", b"\xff" * 9, craft.safetensors(Draft().base)[:-1], craft.safetensors(Draft().result)):
        (tmp_path / "base").write_bytes(base)
        done = start(tmp_path / "a.dpk", tmp_path / "base", tmp_path / "out")
        assert done.stderr.startswith("invalid: [A1] ")
        assert not (tmp_path / "out").exists()

"""Both readers answer every conformance case as it says, and every rule has cases."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import numpy as np
import pytest

import diffpack
from diffpack.errors import DiffpackError
from spec import reader
from tests.tools import ROOT, craft, worked_examples
from tests.tools.conformance import CASES, FOLDERS, acceptable, base_of, content, told

SPEC = (ROOT / "spec" / "format.md").read_text()


def load(name, path):
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def verify_and_apply(file, base, output):
    diffpack.verify(file)
    diffpack.apply(base, file, output)


def read_and_apply(data, base):
    return reader.apply(reader.read(data), base)


@pytest.mark.parametrize("case", CASES, ids=told)
def test_diffpack_answers_as_the_case_says(case, tmp_path):
    base = base_of(case)
    if case["expect"] == "valid":
        diffpack.verify(case["folder"] / case["file"], base)
        diffpack.apply(base, case["folder"] / case["file"], tmp_path / "result.safetensors")
        assert content(tmp_path / "result.safetensors") == content(case["folder"] / case["result"])
        return
    name = "result" if case["expect"] == "L7" else "result.safetensors"  # an index is written into a folder only
    with pytest.raises(DiffpackError, match=rf"\[({'|'.join(acceptable(case))})\]") as caught:
        verify_and_apply(case["folder"] / case["file"], base, tmp_path / name)
    assert caught.value.exit_code in (1, 10, 11, 12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", CASES, ids=told)
def test_the_reference_reader_answers_as_the_case_says(case):
    data = (case["folder"] / case["file"]).read_bytes()
    base = {}
    if "base" in case:
        base = {name: reader.Tensor(*item) for name, item in content(case["folder"] / case["base"]).items()}
    if case["expect"] == "valid":
        result = reader.apply(reader.read(data), base)
        assert {name: tuple(item) for name, item in result.items()} == content(case["folder"] / case["result"])
        return
    with pytest.raises(reader.Invalid) as caught:
        read_and_apply(data, base)
    assert caught.value.rule in acceptable(case)


SEVERAL = [case for case in CASES if "accept" in case]


@pytest.mark.parametrize("case", SEVERAL, ids=told)
def test_each_rule_that_may_be_named_is_broken(case, monkeypatch):
    """A reader that looks at no other of them names it."""
    assert case["accept"][0] == case["expect"]
    assert len(set(case["accept"])) == len(case["accept"]) > 1
    data = (case["folder"] / case["file"]).read_bytes()
    for rule in case["accept"]:
        if (case["file"], rule) in OUT_OF_ORDER:
            continue
        overlooked = set(case["accept"]) - {rule}

        def check(ok, broken, message, overlooked=overlooked):
            if not ok and broken not in overlooked:
                raise reader.Invalid(broken, message)

        for module in PAGES:
            monkeypatch.setattr(module, "check", check)
        with pytest.raises(reader.Invalid) as caught:
            reader.read(data)
        assert caught.value.rule == rule


PAGES = [
    importlib.import_module(f"spec.{path.stem}")
    for path in sorted((ROOT / "spec").glob("*.py"))
    if path.stem != "__init__"
]
OUT_OF_ORDER = {(f"invalid/C4-{name}.dpk", "P1") for name in ("count", "zstd", "pco")} | {
    ("invalid/F1-newlines.dpk", rule) for rule in ("F4", "F5")
}
"""What this reader cannot come to: it takes no more numbers than a stream holds, and the trailer after the header."""


def test_every_rule_has_a_case_that_keeps_it_and_one_that_breaks_it():
    rules = set(re.findall(r"\[([A-Z]\d)\]", SPEC))
    assert len(rules) > 30
    assert {rule for case in CASES if case["expect"] == "valid" for rule in case["rules"]} <= rules
    assert {case["expect"] for case in CASES} - {"valid"} == rules
    kept = {rule for case in CASES if case["expect"] == "valid" for rule in case["rules"]}
    always = {"F1", "F3", "F4", "F5", "F8", "C6", "G5", "M3", "A1", "L2"}  # every valid file keeps them
    assert rules - kept <= always


def test_the_files_are_those_the_cases_name():
    named = {case["folder"] / case[member] for case in CASES for member in ("file", "base", "result") if member in case}
    found = {path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()}
    assert found == named | {folder / "cases.json" for folder in FOLDERS}


def test_manifests_fit_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "spec" / "manifest.schema.json").read_text()))
    for case in CASES:
        if case["expect"] == "valid":
            with diffpack.open(case["folder"] / case["file"]) as diff:
                validator.validate(diff._reader.manifest)


def test_both_readers_compute_one_fingerprint():
    for path in {case["folder"] / case["base"] for case in CASES if "base" in case}:
        tensors = {key: reader.Tensor(*item) for key, item in content(path).items()}
        assert reader.fingerprint(tensors) == diffpack.fingerprint(path)


def test_the_limits_of_code_and_specification_are_the_same():
    from diffpack.format import limits

    rows = dict(re.findall(r"^\| ([^|]+?) \| (\d+)", SPEC.split("## 9. Limits")[1], re.MULTILINE))
    assert {int(value) for value in rows.values()} == {
        limits.MANIFEST_BYTES, limits.CHUNKS, limits.STREAMS_A_CHUNK, limits.STREAM_DECODED_BYTES,
        limits.STREAM_STORED_BYTES, limits.CHUNK_DECODED_BYTES, limits.NAME_BYTES, limits.DIMENSIONS, limits.WORDS,
        limits.CLASSES_SPAN_WORDS, limits.RULE_WORDS, limits.MANIFEST_DECODED.free, limits.MANIFEST_VALUES.free,
        limits.NUMBERS.free, limits.SPAN_STREAM_BYTES,
    }  # fmt: skip
    grown = re.findall(r"^\| [^|]+? \| (\d+) \| (\d+) (?:a byte|for (\d+) bytes) of ", SPEC, re.MULTILINE)
    assert [(int(free), int(each), int(of or 1)) for free, each, of in grown] == [
        limits.MANIFEST_DECODED, limits.MANIFEST_VALUES, limits.NUMBERS,
    ]  # fmt: skip


def test_the_dtype_table_is_that_of_the_code():
    from diffpack.tensors.dtypes import DTYPES

    table = SPEC.split("## 8. Dtypes")[1].split("\n\n")[1]
    named = set(re.findall(r"\b(?:BOOL|C64|BF16|[FUI]\d+(?:_E\dM\d(?:FNUZ)?)?)\b", table))
    assert named == set(DTYPES)


def quoted(start, stop):
    """The names in backticks between two places of the specification, those in one pair of backticks one by one."""
    text = " ".join(SPEC.split()).split(start)[1].split(stop)[0]
    return tuple(name for names in re.findall(r"`([^`]+)`", text) for name in names.split())


def test_a_folder_means_what_the_specification_says():
    from diffpack.checkpoints import folder

    assert quoted("- The first of these names that the folder has:", "An index of which") == folder._KNOWN
    assert quoted("- Else, of the endings", ", the first that any") == folder._ENDINGS
    assert quoted("- Of a sub-folder the first of these names counts", "An index of which") == folder._PARTS
    for name in quoted("What trainers save is no weights:", ", with a number"):
        assert folder._TRAINING.fullmatch(f"{name}.bin")
        assert folder._TRAINING.fullmatch(f"{name}_0.pt")


def test_the_names_no_side_file_may_have_are_those_of_the_code():
    from diffpack.format import file_names

    assert quoted("case-folded, does not end with one of", ", with `.index.json`") == file_names.WEIGHT_ENDINGS
    assert quoted("Only if `requires` holds `code` may it end with one of", "(This holds") == file_names.CODE_ENDINGS
    layout = quoted("- [L6] In the layout of a folder, the files' names MUST end", ", in just these")
    assert layout == (file_names.FILE_ENDING, file_names.INDEX_ENDING)


def shown_bytes(page):
    """The bytes that a page of the specification shows in hex."""
    text = (ROOT / "spec" / page).read_text()
    return bytes.fromhex("".join(re.findall(r"^[0-9a-f]{8}  ((?:[0-9a-f]{2} )+)", text, re.MULTILINE)))


@pytest.mark.parametrize("name", worked_examples.EXAMPLES)
def test_the_worked_examples_of_codings_are_what_the_writer_writes(name, tmp_path):
    page = (ROOT / "spec" / f"example-{name}.md").read_text()
    example = worked_examples.EXAMPLES[name]()
    assert shown_bytes(f"example-{name}.md") == example.data
    assert all(line in page for line in worked_examples.hex_lines(example.data))
    (tmp_path / "base.safetensors").write_bytes(craft.safetensors(example.base))
    diffpack.verify(example.data, tmp_path / "base.safetensors")
    diffpack.apply(tmp_path / "base.safetensors", example.data, tmp_path / "result.safetensors")
    assert content(tmp_path / "result.safetensors") == example.result
    base = {key: reader.Tensor(*item) for key, item in example.base.items()}
    assert {key: tuple(item) for key, item in reader.apply(reader.read(example.data), base).items()} == example.result


def test_the_numbers_told_beside_the_examples_are_those_of_the_results():
    (words,) = (np.frombuffer(data, np.float16) for _, _, data in worked_examples.levels_example().result.values())
    assert words[[0, 4096, 4098, 8096]].tolist() == [1.0, 4.0, 4.01171875, 3.998046875]
    (words,) = (np.frombuffer(data, np.float32) for _, _, data in worked_examples.grid_example().result.values())
    assert words.tolist() == [1.234375, 2.0, -0.03125, 4.75, 0.765625, 0.0]
    assert np.signbit(words[5])
    (words,) = (np.frombuffer(data, np.float32) for _, _, data in worked_examples.factors_example().result.values())
    assert words.tolist() == [1.09375, 2.0, 0.59765625, 3.7578125, 1.0625, 0.0]
    assert np.signbit(words[5])


def test_the_worked_example_is_what_the_writer_writes(tmp_path):
    """The example's manifest is raw, to be readable and the same under every version of zstd."""
    shown = shown_bytes("example.md")
    base = {"w": np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5], np.float32)}
    tuned = {"w": np.array([0.0, 0.5, 1.0000001, 1.5, 2.0, 2.5, 3.0, 3.4999998], np.float32)}
    diffpack.extract(base, tuned, tmp_path / "example.dpk", profile="portable")
    maker = load("make_v1", ROOT / "fixtures" / "make_v1.py")
    manifest, chunks = maker.unpack((tmp_path / "example.dpk").read_bytes())
    assert maker.build(manifest, chunks) == shown
    diffpack.verify(shown, base)

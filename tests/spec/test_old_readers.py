"""Readers of older versions read what today's writer makes, to the same bits, or refuse it by the feature's name."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.format import features, frame, writer
from diffpack.format.limits import Allowance
from diffpack.tensors.dtypes import DTYPES
from spec.old.v1_1 import manifest as manifest_1_1
from tests.tools import ROOT, craft
from tests.tools.chains import RENAMES, chains, rename_arrays
from tests.tools.conformance import CASES, acceptable, base_of, content, told
from tests.tools.fused import fused
from tests.tools.fused import model as parted
from tests.tools.low_rank import few_directions, matrices
from tests.tools.models import model, tune, write_safetensors, write_shards
from tests.tools.old_readers import FEATURES, OLD, answer, applied, bytes_of, check

LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
PROFILES = ["compact", "portable", "smallest"]
BASE = model() | {"large": np.random.default_rng(3).standard_normal((300, 200)).astype(np.float32)}

NO_TENSORS = re.compile("F8|L")
"""Rules that became stricter without being about what a tensor is: limits, and files beside the tensors."""

# The readers themselves


def test_the_reader_of_every_older_version_is_kept() -> None:
    assert sorted(OLD) == list(range(frame.MINOR))
    assert features.FEATURES == FEATURES
    assert {name for name, minor in FEATURES.items() if minor <= 1} == manifest_1_1.FEATURES


@pytest.mark.parametrize("folder", ["spec/old", "fixtures"])
def test_what_was_released_is_never_rewritten(folder: str) -> None:
    lines = [line.split("  ", 1) for line in (ROOT / folder / "SHA256SUMS").read_text().splitlines()]
    changed = [
        name for digest, name in lines if hashlib.sha256((ROOT / folder / name).read_bytes()).hexdigest() != digest
    ]
    assert not changed
    versions = {tuple(map(int, re.findall(r"\d+", name.split("/")[0]))) for _, name in lines}
    assert versions == {(1, minor) for minor in range(frame.MINOR)}


def test_every_file_of_a_kept_reader_is_listed() -> None:
    listed = {line.split("  ", 1)[1] for line in (ROOT / "spec" / "old" / "SHA256SUMS").read_text().splitlines()}
    assert listed == {str(path.relative_to(ROOT / "spec" / "old")) for path in (ROOT / "spec" / "old").rglob("*.py")}


@pytest.mark.parametrize("minor", OLD)
@pytest.mark.parametrize("case", CASES, ids=told)
def test_kept_readers_answer_the_fixtures_of_their_time_and_misread_none_that_is_newer(case: Any, minor: int) -> None:
    reader, data = OLD[minor], (case["folder"] / case["file"]).read_bytes()
    base = base_of(case)
    old = {} if base is None else content(base)
    of_its_time = int(case["folder"].name.removeprefix("v1.")) <= minor
    if case["expect"] == "valid":
        required = set(diffpack.open(case["folder"] / case["file"]).manifest.requires)
        newer = {name for name in required if FEATURES[name] > minor}
        assert answer(reader, data, old) == (newer or content(case["folder"] / case["result"]))
    elif of_its_time or not NO_TENSORS.match(case["expect"]):
        with pytest.raises(reader.Invalid) as caught:
            applied(reader, data, old)
        assert not of_its_time or caught.value.rule in acceptable(case)


# What extract writes


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("density", [0, 0.002, 0.02, 0.3, 1])
def test_exact_changes(profile: str, density: float) -> None:
    tuned = tune(BASE, density)
    for positions in ("auto", "gaps", "all", "levels"):
        diff = diffpack.extract(BASE, tuned, profile=profile, positions=positions)
        minor = check(diff, BASE, tuned)
        if positions != "auto":
            assert minor == (1 if positions == "levels" and density else 0)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("values", ["f32", "f16", "bf16", "int8", "int4", "ternary", "sign"])
@pytest.mark.parametrize("choice", [{}, {"density": 0.1}, {"top_k": 500}, {"threshold": 0.005}], ids=str)
def test_lossy_changes(profile: str, values: str, choice: dict[str, float]) -> None:
    base = BASE | {"half": BASE["large"][:9].astype(ml_dtypes.bfloat16), "wide": BASE["embed"].astype(np.float64)}
    diff = diffpack.extract(base, tune(base, 0.4), values=values, profile=profile, **choice)
    assert not diff.exact
    assert check(diff, base, diffpack.load(base, diff)) == 0


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("values", ["exact", "f32", "f16", "bf16", "int8"])
@pytest.mark.parametrize("rule", ["smallest", "largest", "random 7"])
def test_positions_that_a_rule_tells(profile: str, values: str, rule: str) -> None:
    floats = {name: array for name, array in BASE.items() if array.dtype.kind == "f"}
    diff = diffpack.extract(floats, tune(floats, 1), rule=rule, density=0.1, values=values, profile=profile)
    assert check(diff, floats, diffpack.load(floats, diff)) == 1


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16, np.float64])
@pytest.mark.parametrize("choice", [{"budget": 20000}, {"target_error": 0.2}], ids=str)
def test_values_of_a_grid(profile: str, dtype: Any, choice: dict[str, Any]) -> None:
    base = {name: array.astype(dtype) for name, array in BASE.items() if array.dtype.kind == "f"}
    rng = np.random.default_rng(2)
    tuned = {name: (array + 0.01 * rng.standard_normal(array.shape)).astype(dtype) for name, array in base.items()}
    diff = diffpack.extract(base, tuned, rank=0, profile=profile, **choice)
    assert {"grid", "levels"} <= set(diff.manifest.requires)
    assert check(diff, base, diffpack.load(base, diff)) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_tensors_of_every_dtype_that_change_are_new_and_grow(tmp_path: Path, profile: str) -> None:
    rng = np.random.default_rng(0)
    old, new = dict[str, craft.Raw](), dict[str, craft.Raw]()
    for name in DTYPES:
        octets = rng.integers(0, 2 if name == "BOOL" else 256, craft.byte_count(name, (8, 12)), np.uint8)
        old[name], old[f"{name} grown"] = ((name, (8, 12), octets.tobytes()) for _ in range(2))
        octets[::5] ^= 1
        new[name], new[f"{name} new"] = ((name, (8, 12), octets.tobytes()) for _ in range(2))
        new[f"{name} grown"] = (name, (9, 12), octets.tobytes() + bytes(craft.byte_count(name, (1, 12))))
    paths = [tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"]
    for path, tensors in zip(paths, (old, new), strict=True):
        path.write_bytes(craft.safetensors(tensors))
    for positions in ("gaps", "all", "levels"):
        diff = diffpack.extract(*paths, profile=profile, positions=positions)
        assert content(paths[1]) == new
        assert check(diff, paths[0], paths[1]) == (1 if positions == "levels" else 0)


@pytest.mark.parametrize("profile", PROFILES)
def test_tensors_that_are_new_gone_resized_retyped_renamed_and_tied(profile: str) -> None:
    tuned = {name.replace("encoder.", "body."): array for name, array in tune(BASE, 0.05).items() if name != "ids"}
    tuned["head"] = np.ones((3, 4), np.float32)
    tuned["lm_head"] = tuned["embed"].copy()
    tuned["body.1.weight"] = tuned["body.1.weight"].astype(ml_dtypes.bfloat16)
    tuned["large"] = np.concatenate([tuned["large"], tuned["large"][:7]])[:, :150]
    diff = diffpack.extract(
        BASE, tuned, rename=[("encoder.", "body.")], allow_removed=True, profile=profile, positions="gaps",
        metadata={"task": "ä \u2028"}, base_name="b", base_revision="r",
    )  # fmt: skip
    manifest = diff.manifest
    assert (manifest.removed, manifest.aliases, len(manifest.rename)) == (("ids",), {"lm_head": "embed"}, 1)
    assert {"new", "resized", "retyped", "changed"} <= {record.kind for record in diff.values()}
    assert check(diff, BASE, tuned) == 0


def test_what_is_stored_raw_so_that_small_files_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and manifests that say too little for their size (F8), here with limits that are soon reached."""
    monkeypatch.setattr(writer, "NUMBERS", Allowance(40_000, 1))
    monkeypatch.setattr(writer, "MANIFEST_DECODED", Allowance(0))
    tuned = {name: array * 2 if array.dtype.kind == "f" else array for name, array in BASE.items()}
    diff = diffpack.extract(BASE, tuned)
    plain = [chunk.codecs == {"raw"} for chunk in diff.chunks]
    assert any(plain)
    assert not all(plain)
    assert bytes_of(diff)[-48:-44] == bytes(4), "the manifest is not raw"
    assert check(diff, BASE, tuned) == 0


@settings(max_examples=120, deadline=None, suppress_health_check=LENIENT)
@given(
    chains(links=1),
    st.sampled_from(PROFILES),
    st.sampled_from(["auto", "gaps", "all", "levels"]),
    st.sampled_from([(), *RENAMES]),
)
def test_any_pair(states: list[Any], profile: str, positions: str, rules: Any) -> None:
    base, tuned = states[0], rename_arrays(states[1], rules)
    rules = rules if tuned is not states[1] and len(rename_arrays(base, rules)) == len(base) else ()
    try:
        diff = diffpack.extract(
            base, tuned, profile=profile, positions=positions, rename=rules, allow_removed=True
        )  # fmt: skip
    except diffpack.errors.UsageError:  # two tensors of the base would get one name
        return
    check(diff, base, tuned)


# Files: layouts, side files, structures


def by_program(minor: int, *paths: Path) -> bytes:
    """What the program of an old reader writes."""
    OLD[minor].main(*map(str, paths))
    return paths[-1].read_bytes()


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"format": "pt", "by": "a test"}])
def test_a_file_is_given_back_byte_for_byte(pair: tuple[Path, Path], tmp_path: Path, metadata: dict[str, str]) -> None:
    base, tuned = pair
    write_safetensors(tuned, tune(model()), metadata)
    diffpack.extract(base, tuned, tmp_path / "a.dpk", sha256=True)
    assert check(tmp_path / "a.dpk", base, tuned) == 0
    for minor in OLD:
        assert by_program(minor, tmp_path / "a.dpk", base, tmp_path / "out") == tuned.read_bytes()


def folder_of(path: Path, arrays: Any, config: str) -> Path:
    names = sorted(arrays)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    write_shards(path, {name: {key: arrays[key] for key in keys} for name, keys in shards.items()})
    (path / "config.json").write_text(json.dumps({"by": config}))
    (path / "tokenizer.json").write_text("{}")
    return path


def test_folders_of_shards_with_side_files(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", model(), "base")
    tuned = folder_of(tmp_path / "tuned", tune(model()), "tuned")
    diff = diffpack.extract(base, tuned)
    assert [(file.name, file.stored) for file in diff.manifest.files] == [
        ("config.json", True),
        ("tokenizer.json", False),
    ]
    assert check(diff, base, tuned) == 0
    for reader in OLD.values():
        read = reader.read(bytes_of(diff))
        assert read.files == {"config.json": b'{"by": "tuned"}'}


def test_what_an_hdf5_file_holds_beside_its_tensors_is_optional(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for name, arrays in (("base", model()), ("tuned", tune(model()))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs["by"] = name
            for key, array in arrays.items():
                file[key] = array
    diff = diffpack.extract(tmp_path / "base.h5", tmp_path / "tuned.h5")
    assert diff.manifest.optional == ("structure",)
    assert check(diff, tmp_path / "base.h5", tmp_path / "tuned.h5") == 0


@pytest.mark.real
@pytest.mark.parametrize("profile", PROFILES)
def test_a_real_fine_tune(real_pair: tuple[Path, Path], profile: str) -> None:
    rank = 0 if profile == "smallest" else None  # factors are of 1.2
    diff = diffpack.extract(*real_pair, profile=profile, rank=rank, layout=False, files="none")
    assert check(diff, *real_pair) <= 1


# What needs something newer


def newer_diffs(folder: Path) -> dict[str, tuple[diffpack.Diff, Any, Any]]:
    """For each feature of 1.2 a diff that requires it, its base and its result."""
    base, tuned = folder_of(folder / "base", model(), "base"), folder_of(folder / "tuned", tune(model()), "tuned")
    (tuned / "modeling.py").write_text("pass")
    found = {"code": (diffpack.extract(base, tuned, code=True), base, tuned)}
    (tuned / "1_Pooling").mkdir()
    (tuned / "1_Pooling" / "config.json").write_text("{}")
    found["paths"] = diffpack.extract(base, tuned), base, tuned
    embed = np.random.default_rng(0).standard_normal((512, 64)).astype(np.float32)
    tied = {"embed": embed, "head": embed + np.float32(1e-3) * embed[::-1]}
    found["copies"] = diffpack.extract({"embed": embed}, tied), {"embed": embed}, tied
    made = fused(tune(parted()))
    found["slices"] = diffpack.extract(parted(), made), parted(), made
    few = diffpack.extract(matrices(), few_directions(matrices()), values="lowrank")
    found["lowrank"] = few, matrices(), diffpack.load(matrices(), few)
    return found


def test_every_newer_feature_is_refused_by_its_name(tmp_path: Path) -> None:
    diffs = newer_diffs(tmp_path)
    assert diffs.keys() == {name for name, minor in FEATURES.items() if minor == frame.MINOR}
    for name, (diff, base, result) in diffs.items():
        assert check(diff, base, result) == frame.MINOR
        for reader in OLD.values():
            assert name in answer(reader, bytes_of(diff), content(base))

"""A renamed diff has the same base, and a result with the same bits under other names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import BaseNeededError, ResultMismatchError, UsageError, WrongBaseError
from tests.tools.chains import chains
from tests.tools.models import Arrays, bits, model, tune, write_safetensors, write_shards

BASE = model()
TUNED = tune(BASE, 0.1)
LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def back(name: str) -> str:
    """An order that is another one: names turned round."""
    return name[::-1]


def checked(diff: diffpack.Diff, base: Any, expected: Arrays, renaming: Any, **options: Any) -> diffpack.Renamed:
    """Rename; the result has the expected tensors, the fingerprint says so."""
    done = diffpack.rename(diff, renaming, base=base, **options)
    assert bits(diffpack.load(base, done.diff)) == bits(expected)
    assert done.diff.manifest.base == diff.manifest.base
    assert done.diff.exact == diff.exact
    if diff.exact:
        assert done.diff.manifest.result.fingerprint == diffpack.fingerprint(expected)
    diffpack.verify(done.diff, base)
    return done


@settings(max_examples=100, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), st.sampled_from([{}, {"profile": "smallest"}, {"profile": "portable"}]), st.booleans())
def test_any_diff_has_the_tensors_under_the_new_names(states: list[Arrays], options: Any, turned: bool) -> None:
    base, tuned = states
    diff = diffpack.extract(base, tuned, allow_removed=True, **options)
    renaming = back if turned else [("", "m.")]
    name = back if turned else lambda name: f"m.{name}"
    checked(diff, base, {name(key): array for key, array in tuned.items()}, renaming)


LOSSY: list[dict[str, Any]] = [
    {"values": "f16"}, {"values": "int8"}, {"density": 0.05}, {"budget": "5%"}, {"rule": "random 3", "density": 0.1},
    {"rule": "smallest", "density": 0.1},
]  # fmt: skip


@pytest.mark.parametrize("options", LOSSY, ids=str)
@pytest.mark.parametrize("name", [back, lambda name: f"m.{name}"])
def test_lossy_diffs_give_the_same_numbers(options: dict[str, Any], name: Any) -> None:
    diff = diffpack.extract(BASE, TUNED, **options)
    result = diffpack.load(BASE, diff)
    done = checked(diff, BASE, {name(key): array for key, array in result.items()}, name)
    assert done.diff.manifest.result.fingerprint is not None
    assert done.diff.manifest.error == diff.manifest.error
    assert {key: done.diff.error(key) for key in done.diff} == {name(key): diff.error(key) for key in diff}


def test_changes_whose_order_stays_are_not_coded_anew() -> None:
    diff = diffpack.extract(BASE, TUNED, profile="smallest")
    done = checked(diff, BASE, {f"m.{name}": array for name, array in TUNED.items()}, [("", "m.")]).diff
    assert [chunk.digest for chunk in done.chunks] == [chunk.digest for chunk in diff.chunks]
    assert abs(done.nbytes - diff.nbytes) < 64


def test_renaming_there_and_back_gives_the_diff_again() -> None:
    diff = diffpack.extract(BASE, TUNED)
    there = diffpack.rename(diff, [("", "m.")], base=BASE).diff
    again = diffpack.rename(there, [("m.", "")], base=BASE).diff
    assert again.manifest == diff.manifest


def test_what_is_gone_tied_or_from_elsewhere_is_renamed_too() -> None:
    rng = np.random.default_rng(0)
    base = BASE | {"gone": rng.standard_normal((9, 9)).astype(np.float32)}
    tuned = TUNED | {"head": base["embed"] + np.float32(1e-3), "tied": TUNED["embed"].copy(), "layer": BASE["embed"]}
    diff = diffpack.extract(base, tuned, allow_removed=True)
    assert diff.manifest.removed == ("gone",)
    assert diff.manifest.aliases
    assert diff.manifest.copies
    done = checked(diff, base, {f"x.{name}": array for name, array in tuned.items()}, lambda name: f"x.{name}").diff
    assert len(done.manifest.removed) == 1
    taken = checked(diff, base, {"gone" if name == "head" else name: tuned[name] for name in tuned}, [("head", "gone")])
    assert taken.diff.manifest.removed == ("removed.gone",)


def test_the_base_is_needed_but_for_what_is_open() -> None:
    exact, lossy = (diffpack.extract(BASE, TUNED, **options) for options in ({}, {"values": "f16"}))
    for diff in (exact, lossy):
        with pytest.raises(BaseNeededError, match="fingerprint depends on the names"):
            diffpack.rename(diff, [("", "m.")])
    merged = diffpack.merge([lossy, lossy], weights=[0.5, 0.5])
    with pytest.raises(BaseNeededError):
        diffpack.rename(merged, lambda name: f"m.{name}")
    done = diffpack.rename(merged, [("", "m.")]).diff
    assert done.manifest.result.fingerprint is None
    expected = diffpack.load(BASE, merged)
    assert bits(diffpack.load(BASE, done)) == bits({f"m.{name}": array for name, array in expected.items()})


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    diff = diffpack.extract(BASE, TUNED)
    with pytest.raises(UsageError, match="gives both"):
        diffpack.rename(diff, lambda _: "one", base=BASE)
    with pytest.raises(UsageError, match="fits no tensor"):
        diffpack.rename(diff, [(re.compile("nowhere"), "x")], base=BASE)
    with pytest.raises(WrongBaseError):
        diffpack.rename(diff, [("", "m.")], base=tune(BASE, 0.5, 7), output=tmp_path / "out.dpk")
    assert not (tmp_path / "out.dpk").exists()


def test_a_result_that_is_not_the_recorded_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    diff = diffpack.extract(BASE, TUNED)
    result = diff.manifest.result
    monkeypatch.setattr(diff, "manifest", type(diff.manifest)(**{
        **{name: getattr(diff.manifest, name) for name in diff.manifest.__struct_fields__},
        "result": type(result)("0" * 64, result.tensors, result.entries, result.bytes),
    }))  # fmt: skip
    with pytest.raises(ResultMismatchError):
        diffpack.rename(diff, [("", "m.")], base=BASE)


@pytest.mark.parametrize("same", [True, False])
def test_the_files_come_back_with_the_new_names(tmp_path: Path, same: bool) -> None:
    """Whether the layout is stored or the base's own; by hand the same file is written."""
    base = write_safetensors(tmp_path / "base.safetensors", BASE)
    tuned = write_safetensors(tmp_path / "tuned.safetensors", TUNED if same else TUNED | {"new": TUNED["embed"] + 1})
    diff = diffpack.extract(base, tuned, sha256=True)
    assert diff.manifest.layout is not None
    assert diff.manifest.layout.stored != same
    done = diffpack.rename(diff, [("", "m.")], base=base)
    assert any("SHA-256" in note for note in done.notes)
    out = tmp_path / "out.safetensors"
    diffpack.apply(base, done.diff, out)
    order = list(diffpack.open_checkpoint(tuned).tensors)
    assert list(diffpack.open_checkpoint(out).tensors) == [f"m.{name}" for name in order]
    kept = diffpack.rename(diff, [("nothing.", "m.")], base=base)
    assert kept.diff.manifest == diff.manifest
    assert len(kept.notes) == 1
    assert "begins with nothing.: they are called" in kept.notes[0]


def test_a_folder_keeps_its_index_and_its_side_files(tmp_path: Path) -> None:
    names = sorted(BASE)
    parts = ({"a.safetensors": names[:2], "b.safetensors": names[2:]}, {"x.safetensors": names})
    for folder, model_of, shards in (("base", BASE, parts[0]), ("tuned", TUNED, parts[0]), ("other", BASE, parts[1])):
        write_shards(tmp_path / folder, {shard: {key: model_of[key] for key in keys} for shard, keys in shards.items()})
        (tmp_path / folder / "config.json").write_text(f'{{"name": "{folder}"}}')
    diff = diffpack.extract(tmp_path / "base", tmp_path / "tuned")
    done = diffpack.rename(diff, [("", "m.")], base=tmp_path / "base")
    diffpack.apply(tmp_path / "base", done.diff, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {f"m.{name}": shard for shard, keys in parts[0].items() for name in keys}
    assert (tmp_path / "out" / "config.json").read_text() == (tmp_path / "tuned" / "config.json").read_text()
    elsewhere = diffpack.rename(diff, [("", "m.")], base=tmp_path / "other")
    assert elsewhere.diff.manifest.layout is None
    assert any("layout" in note for note in elsewhere.notes)

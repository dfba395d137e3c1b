"""A tuned checkpoint that lacks most of the base is refused, with the hint that fits; what may go, goes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import UsageError
from tests.tools.command_line import fails, ok, run
from tests.tools.models import Arrays, bits, write_safetensors, write_shards

LAYERS = 4


def base() -> Arrays:
    rng = np.random.default_rng(0)
    layers = {f"layers.{at}.weight": rng.standard_normal((32, 32)).astype(np.float32) for at in range(LAYERS)}
    return {"embed": rng.standard_normal((64, 32)).astype(np.float32), **layers}


def moved(arrays: Arrays) -> Arrays:
    return {name: array + np.float32(1e-3) * (np.arange(array.size).reshape(array.shape) % 7 == 0)
            for name, array in arrays.items()}  # fmt: skip


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "base.safetensors", base(), {"format": "pt"})
    return tmp_path


def adapter(at: Path) -> Path:
    (at / "adapter").mkdir()
    factors = {f"base_model.model.layers.0.lora_{side}.weight": np.ones((2, 32), np.float32) for side in "AB"}
    write_safetensors(at / "adapter" / "adapter_model.safetensors", factors)
    (at / "adapter" / "adapter_config.json").write_text("{}")
    return at / "adapter"


def adapter_file(at: Path) -> Path:
    return adapter(at) / "adapter_model.safetensors"


def unnamed_adapter(at: Path) -> Path:
    """Of a method whose names tell nothing: the file's own does."""
    (at / "shira").mkdir()
    return write_safetensors(at / "shira" / "adapter_model.safetensors", {"values": np.ones(9, np.float32)})


def shards(at: Path) -> Path:
    parts = list(moved(base()).items())
    return write_shards(at / "tuned", {"model-00001-of-00002.safetensors": dict(parts[1:3]),
                                       "model-00002-of-00002.safetensors": dict([parts[0], *parts[3:]])})  # fmt: skip


def shard(at: Path) -> Path:
    return shards(at).parent / "model-00001-of-00002.safetensors"


def shard_alone(at: Path) -> Path:
    shards(at).unlink()
    return at / "tuned" / "model-00001-of-00002.safetensors"


def first_shard(at: Path) -> Path:
    """Most of the model, as a first shard is."""
    parts = list(moved(base()).items())
    files = {"model-00001-of-00002.safetensors": dict(parts[:-1]), "model-00002-of-00002.safetensors": dict(parts[-1:])}
    return write_shards(at / "tuned", files).parent / "model-00001-of-00002.safetensors"


def shard_of_any_name(at: Path) -> Path:
    return write_shards(
        at / "tuned", {"a.safetensors": dict(list(base().items())[1:2]), "b.safetensors": {}}
    ).parent / ("a.safetensors")


def nothing(at: Path) -> Path:
    return write_safetensors(at / "tuned.safetensors", {})


def gathered_nowhere(at: Path) -> Path:
    """What ZeRO stage 3 saves of each parameter that is not gathered."""
    return write_safetensors(at / "tuned.safetensors", {name: np.zeros(0, np.float32) for name in base()})


def other_names(at: Path) -> Path:
    others = np.random.default_rng(1).standard_normal((9, 32, 32)).astype(np.float32)
    return write_safetensors(at / "tuned.safetensors", {f"other{at}": array for at, array in enumerate(others)})


def another_thing(at: Path) -> Path:
    return write_safetensors(at / "tuned.safetensors", {"step": np.array(5), "betas": np.ones(2)})


CASES = {
    adapter: "an adapter, not a model: `diffpack convert adapter -o OUT.dpk --base base.safetensors` reads it",
    adapter_file: "an adapter, not a model: `diffpack convert",
    unnamed_adapter: "an adapter, not a model: `diffpack convert",
    shard: "one shard of several: name the index .*model.safetensors.index.json, or the folder",
    first_shard: "one shard of several: name the index .*model.safetensors.index.json, or the folder",
    shard_alone: "shard 1 of 2: name the folder",
    shard_of_any_name: "one shard of several: name the index",
    nothing: "it holds no tensors",
    gathered_nowhere: "its tensors are empty.*save it gathered",
    other_names: "its tensors have other names .*--rename",
    another_thing: "it is no fine-tune of the whole base",
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_it_is_refused_with_the_hint_that_fits_and_stored_if_insisted(at: Path, make) -> None:
    path = make(at).relative_to(at)
    before = sorted(at.rglob("*"))
    args = ("extract", "--base", "base.safetensors", "--tuned", str(path), "-o", "d.dpk")
    told = fails(2, rf"{path}\S*: lacks \d+ % of the base's entries \(.*\): {CASES[make]}.*--allow-removed", *args)
    assert "Traceback" not in told
    assert sorted(at.rglob("*")) == before
    ok(*args, "--allow-removed")
    assert diffpack.load("base.safetensors", "d.dpk").keys() == diffpack.open_checkpoint(path).tensors.keys()


def test_a_base_that_is_one_shard_of_several_is_told(at: Path) -> None:
    write_safetensors(at / "tuned.safetensors", moved(base()))
    for name in ("shards", "same"):
        (at / name).mkdir()
    part = first_shard(at / "shards")
    told = run("extract", "--base", str(part), "--tuned", "tuned.safetensors", "-o", "d.dpk").stderr
    assert "model-00001-of-00002.safetensors: one shard of several: name the index" in told
    assert "what it lacks is stored as new, whole" in told
    same = first_shard(at / "same")
    alike = run("extract", "--base", str(part), "--tuned", str(same), "-o", "s.dpk")
    assert alike.exit_code == 0
    assert "shard" not in alike.stderr


@pytest.mark.parametrize(
    "options", [{"values": "f16"}, {"budget": "50%"}, {"density": 0.1}, {"rule": "random 0", "density": 0.1}]
)
def test_however_it_is_stored(options) -> None:
    with pytest.raises(UsageError, match="lacks 83 %"):
        diffpack.extract(base(), dict(list(moved(base()).items())[1:2]), **options)


def without(*gone: str) -> Arrays:
    return {name: array for name, array in moved(base()).items() if name not in gone}


@pytest.mark.parametrize(
    "tuned",
    [
        without("embed"),  # a third: a head, a vocabulary
        without("layers.2.weight", "layers.3.weight"),  # layers pruned
        without("embed", "layers.3.weight"),  # half of the entries to the last one
        {name: array[:, :4] for name, array in base().items()},  # narrowed: of each something is left
        {f"model.{name}": array for name, array in moved(base()).items()},  # renamed
        {name: array.astype(np.float64).view(np.int64) for name, array in base().items()},  # replaced, name by name
        {"embed": base()["embed"], "one": base()["embed"], "layers.0.weight": base()["layers.0.weight"]},
        # moved on under other names, where they are found again
        {f"blocks.{at + 7}.dense": moved(base())[f"layers.{at}.weight"] for at in range(LAYERS)},
    ],
    ids=["head", "layers", "half", "narrowed", "renamed", "replaced", "copied", "moved"],
)
def test_what_may_go_goes(tuned: Arrays) -> None:
    diff = diffpack.extract(base(), tuned)
    assert bits(diffpack.load(base(), diff)) == bits(tuned)


def test_tied_tensors_of_which_one_name_is_kept_are_not_gone() -> None:
    """Of five equal tensors one stays: by bytes 80 % of the base go, of what it says nothing does."""
    tied = {f"w{at}": base()["embed"] for at in range(5)}
    assert len(diffpack.extract(tied, {"w3": tied["w3"]}).manifest.removed) == 4
    diffpack.extract(tied, {"w3": moved(tied)["w3"], "other": tied["w0"]})
    diffpack.extract(tied, {"w3": moved(tied)["w3"]})


def test_one_entry_more_than_half_is_too_much() -> None:
    before = {"kept": np.zeros(100, np.float32), "gone": np.ones(100, np.float32), "more": np.ones(1, np.float32)}
    diffpack.extract(before, {"kept": before["kept"], "more": before["more"]})
    with pytest.raises(UsageError, match="lacks 50 %"):
        diffpack.extract(before, {"kept": before["kept"]})


def test_the_base_of_no_entries_has_none_to_lose() -> None:
    assert len(diffpack.extract({}, moved(base()))) == len(base())
    assert not len(diffpack.extract({"none": np.zeros((0, 4), np.float32)}, {}))


def test_json_and_quiet_runs_are_refused_too(at: Path) -> None:
    nothing(at)
    args = ("extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors", "--json")
    fails(2, "lacks 100 %", *args, "-q")
    assert len(json.loads(ok(*args, "--allow-removed"))["removed"]) == len(base())

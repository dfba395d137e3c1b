"""One base, many fine-tunes: the same diffs as one by one, and what one fails with is no other's matter."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import diffpack
from diffpack.checkpoints.collection import checkpoints_in
from diffpack.checkpoints.safetensors_reader import SafetensorsCheckpoint
from diffpack.errors import CheckpointError, SomeFailedError, UsageError
from diffpack.extraction.choices import Choices
from diffpack.extraction.scan import scan
from diffpack.tensors import digests
from tests.tools import fused as parts
from tests.tools.models import Arrays, model, tune, write_safetensors, write_shards


def stack(seed: int = 0) -> Arrays:
    """A model with a stack of layers that have contents by which they can be told apart."""
    rng = np.random.default_rng(seed)
    layers = {f"layers.{at}.{part}.weight": rng.standard_normal((48, 32)) for at in range(4) for part in "qkv"}
    return {name: array.astype(np.float32) for name, array in layers.items()} | {
        "embed": rng.standard_normal((100, 32)).astype(np.float32),
        "norm": np.ones(48, np.float32),
        "ids": np.arange(64, dtype=np.int64),
    }


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, and fine-tunes of it in every way they may differ from it, where commands run."""
    monkeypatch.chdir(tmp_path)
    base = stack()
    write_safetensors(tmp_path / "base.safetensors", base)
    one = tune(base)
    write_safetensors(tmp_path / "plain.safetensors", one)
    write_safetensors(tmp_path / "dense.safetensors", {n: a + np.asarray(1e-3, a.dtype) for n, a in one.items()})
    write_safetensors(tmp_path / "prefixed.safetensors", {f"model.{name}": array for name, array in one.items()})
    dropped = {name.replace("layers.3", "layers.2"): a for name, a in one.items() if not name.startswith("layers.2")}
    write_safetensors(tmp_path / "dropped.safetensors", dropped)
    larger = one | {"embed": np.concatenate([one["embed"], np.ones((4, 32), np.float32)]), "head": one["embed"] * 2}
    write_safetensors(tmp_path / "larger.safetensors", larger | {"tied": one["layers.0.q.weight"]})
    write_safetensors(
        tmp_path / "half.safetensors", {n: a.astype(np.float16) if a.dtype.kind == "f" else a for n, a in one.items()}
    )
    write_safetensors(tmp_path / "same.safetensors", base)
    torch.save({name: torch.from_numpy(array) for name, array in one.items()}, tmp_path / "old.bin")
    np.savez(tmp_path / "arrays.npz", **one)
    write_shards(tmp_path / "sharded", {"a.safetensors": base, "b.safetensors": {"new": np.ones(300, np.float32)}})
    (tmp_path / "sharded" / "config.json").write_text("{}")
    return tmp_path


TUNED = [
    "plain.safetensors", "dense.safetensors", "prefixed.safetensors", "dropped.safetensors", "larger.safetensors",
    "half.safetensors", "same.safetensors", "old.bin", "arrays.npz", "sharded",
]  # fmt: skip
NAMES = ["plain", "dense", "prefixed", "dropped", "larger", "half", "same", "old", "arrays", "sharded"]


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"profile": "smallest"},
        {"density": 0.01, "values": "f16"},
        {"budget": "20%"},
        {"rename": (), "allow_removed": True},
        {"layout": False, "files": "none", "threads": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [1, -1])
def test_each_diff_is_that_of_a_run_of_its_own_byte_for_byte(work, choices, order):
    made = diffpack.extract_many("base.safetensors", TUNED[::order], "out", **choices, metadata={"k": "v"})
    assert [diff.path for diff in made] == [Path("out") / f"{name}.dpk" for name in NAMES[::order]]
    for tuned, diff in zip(TUNED[::order], made, strict=True):
        diffpack.extract("base.safetensors", tuned, "alone.dpk", force=True, **choices, metadata={"k": "v"}).close()
        assert diff.path is not None
        assert diff.path.read_bytes() == Path("alone.dpk").read_bytes(), tuned


def test_parts_put_together_are_found_after_the_base_is_known(work):
    base = parts.model()
    first, second = tune(base), parts.fused(tune(base, seed=3))
    diffpack.extract(base, second, "alone.dpk").close()
    _, made = diffpack.extract_many(base, [first, second])
    assert made.manifest.slices
    made.save("many.dpk")
    assert Path("many.dpk").read_bytes() == Path("alone.dpk").read_bytes()


def test_the_base_is_hashed_once_and_opened_once(work, monkeypatch):
    made: list[bytes | None] = []
    opened: Counter[str] = Counter()
    plain, init = digests.PairHasher.digests, SafetensorsCheckpoint.__init__

    def of_pair(self, words):
        found = plain(self, words)
        made.extend(found)
        return found

    def of_parts(words, line):
        found = digests.part_digests(words, line)
        made.extend(found)
        return found

    def opening(self, path, **more):
        opened[path.name] += 1
        init(self, path, **more)

    monkeypatch.setattr(digests.PairHasher, "digests", of_pair)
    monkeypatch.setattr(scan, "part_digests", of_parts)
    monkeypatch.setattr(SafetensorsCheckpoint, "__init__", opening)
    diffpack.extract_many("base.safetensors", ["plain.safetensors", "dense.safetensors", "same.safetensors"], "out")
    assert sum(digest is not None for digest in made) == (1 + 3) * len(stack())
    assert opened == {"base.safetensors": 1, "plain.safetensors": 1, "dense.safetensors": 1, "same.safetensors": 1}


def test_models_in_memory_have_the_names_they_are_given(work):
    base = stack()
    made = diffpack.extract_many(base, {"a": tune(base), "b.v2": tune(base, seed=4)}, "out")
    assert sorted(os.listdir("out")) == ["a.dpk", "b.v2.dpk"]
    diffpack.extract(base, tune(base, seed=4), "alone.dpk")
    assert Path("out/b.v2.dpk").read_bytes() == Path("alone.dpk").read_bytes()
    assert [diff.nbytes for diff in diffpack.extract_many(base, [tune(base), tune(base, seed=4)])] == [
        diff.nbytes for diff in made
    ]


def test_what_one_fails_with_does_not_keep_the_others_from_being_stored(work):
    (work / "cut.safetensors").write_bytes((work / "plain.safetensors").read_bytes()[:-100])
    write_safetensors(work / "adapter.safetensors", {"layers.0.q.lora_A.weight": np.ones((4, 8), np.float32)})
    tuned = ["plain.safetensors", "cut.safetensors", "nowhere.bin", "adapter.safetensors", "dense.safetensors"]
    with pytest.raises(
        SomeFailedError, match=r"3 of 5 failed: cut: cut.safetensors: .*; nowhere: .*; adapter: "
    ) as told:
        diffpack.extract_many("base.safetensors", tuned, "out")
    assert list(told.value.done) == ["plain", "dense"]
    assert {name: type(error) for name, error in told.value.failed.items()} == {
        "cut": CheckpointError, "nowhere": CheckpointError, "adapter": UsageError,
    }  # fmt: skip
    assert told.value.exit_code == 1
    assert sorted(os.listdir("out")) == ["dense.dpk", "plain.dpk"]
    for name in ("plain", "dense"):
        diffpack.verify(f"out/{name}.dpk", "base.safetensors")


def test_a_folder_into_which_nothing_came_is_not_left(work):
    with pytest.raises(SomeFailedError, match="1 of 1 failed") as told:
        diffpack.extract_many("base.safetensors", ["nowhere.bin"], "out")
    assert told.value.exit_code == 1
    assert not Path("out").exists()
    Path("out").mkdir()
    with pytest.raises(SomeFailedError):
        diffpack.extract_many("base.safetensors", ["nowhere.bin"], "out")
    assert Path("out").is_dir()


def test_a_base_that_changes_between_two_fine_tunes_is_seen(work):
    def change(what: str, done: int, total: int) -> None:
        if what.startswith("dense") and Path("base.safetensors").stat().st_mtime_ns != 5:
            os.utime("base.safetensors", ns=(5, 5))

    with pytest.raises(SomeFailedError, match=r"base.safetensors: changed while it was read") as told:
        diffpack.extract_many("base.safetensors", TUNED[:4], "out", progress=change)
    assert (list(told.value.done), list(told.value.failed)) == (["plain"], ["dense", "prefixed", "dropped"])
    assert os.listdir("out") == ["plain.dpk"]


def test_progress_names_the_fine_tune(work):
    seen: list[str] = []
    diffpack.extract_many(
        "base.safetensors", ["plain.safetensors", "dense.safetensors"], progress=lambda what, *_: seen.append(what)
    )
    stages = ["scanning", "choosing", "coding"]
    assert list(dict.fromkeys(seen)) == [f"{name}: {stage}" for name in ("plain", "dense") for stage in stages]


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        (["plain.safetensors", "sub/plain.bin"], r"plain.safetensors and sub/plain.bin would both become plain.dpk"),
        (["plain.safetensors", "sub/PLAIN.bin"], "would both become PLAIN.dpk"),
        (["plain.safetensors", {"w": np.ones(3)}], "fine-tune 1 is in memory, where it has no name"),
        ({"../x": "plain.safetensors"}, r"'../x': no name that a file may have"),
        ({3: "plain.safetensors"}, "3: no name that a file may have"),
        ("plain.safetensors", "extract takes a single one"),
        (None, "extract takes a single one"),
    ],
)
def test_names_that_fit_no_files_are_refused_before_anything_is_read(work, tuned, message):
    with pytest.raises(UsageError, match=message):
        diffpack.extract_many("base.safetensors", tuned, "out")
    assert not Path("out").exists()


def test_outputs_that_cannot_be_are_refused_before_anything_is_read(work):
    tuned = ["plain.safetensors", "dense.safetensors"]
    for output, message in {
        "base.safetensors": "base.safetensors: no folder",
        "all.dpk": "all.dpk: called as a diff",
        "no/where": "no/where: its folder no does not exist",
    }.items():
        with pytest.raises(UsageError, match=message):
            diffpack.extract_many("base.safetensors", tuned, output)
    Path("out").mkdir()
    Path("out/dense.dpk").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"out/dense.dpk: exists already; use --force"):
        diffpack.extract_many("base.safetensors", tuned, "out")
    assert (os.listdir("out"), Path("out/dense.dpk").read_bytes()) == (["dense.dpk"], b"mine")
    diffpack.extract_many("base.safetensors", tuned, "out", force=True)
    diffpack.verify("out/dense.dpk")
    with pytest.raises(UsageError, match="the profile is one of"):
        diffpack.extract_many("base.safetensors", tuned, "new", profile="tiny")
    assert not Path("new").exists()


def test_its_choices_are_the_arguments_of_extract():
    own = {"base", "tuned", "output", "metadata", "force", "progress"}
    assert set(inspect.signature(diffpack.extract).parameters) - own == Choices.__optional_keys__


def test_a_folder_of_checkpoints(work):
    (work / "empty").mkdir()
    (work / "logs").mkdir()
    (work / "logs" / "x.txt").write_text("x")
    (work / ".hidden").mkdir()
    write_safetensors(work / ".hidden" / "model.safetensors", {"w": np.ones(3)})
    for part in ("unet", "vae"):
        (work / "diffusion" / part).mkdir(parents=True)
        write_safetensors(work / "diffusion" / part / "diffusion_pytorch_model.safetensors", {"w": np.ones(3)})
    (work / "optimizer.pt").write_bytes(b"state")
    (work / "old.dpk").write_bytes(b"a diff")
    write_shards(work, {"m-1.safetensors": {"w": np.ones(3)}, "m-2.safetensors": {"v": np.ones(3)}})
    found, others = checkpoints_in(work)
    assert [path.name for path in found] == [
        "arrays.npz", "base.safetensors", "dense.safetensors", "diffusion", "dropped.safetensors", "half.safetensors",
        "larger.safetensors", "model.safetensors.index.json", "old.bin", "plain.safetensors", "prefixed.safetensors",
        "same.safetensors", "sharded",
    ]  # fmt: skip
    assert others == ["empty", "logs", "old.dpk", "optimizer.pt"]


def test_a_folder_without_checkpoints(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"no checkpoints in it, neither folders nor files; it holds notes.txt"):
        checkpoints_in(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoints_in(tmp_path / "notes.txt")


def test_an_index_whose_shards_are_gone_is_no_checkpoint_beside_the_whole_file(tmp_path):
    write_shards(tmp_path, {"a.safetensors": model(), "b.safetensors": {"v": np.ones(3)}})
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").unlink()
    write_safetensors(tmp_path / "model.safetensors", model())
    assert checkpoints_in(tmp_path) == ([tmp_path / "model.safetensors"], ["model.safetensors.index.json"])

"""What is made of files that something else overwrites meanwhile is refused: no output fits neither of two states."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.bridges.formats import hdf5, scipy_npz
from diffpack.checkpoints import fingerprint, safetensors_writer
from diffpack.errors import CheckpointError
from diffpack.result.result import Result
from tests.tools.models import model, tune, write_safetensors, write_shards

Verb = Callable[[Path, Callable[..., None]], object]


class Overwriting:
    """A report of progress that overwrites a file in place when it is first told of some."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done = False

    def __call__(self, *_: object) -> None:
        if not self.done:
            self.done = True
            raw = bytearray(self.path.read_bytes())
            raw[-2000:] = bytes(byte ^ 1 for byte in raw[-2000:])
            before = self.path.stat()
            with self.path.open("r+b") as file:
                file.write(raw)
            os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))  # clocks of files are coarse


@pytest.fixture
def work(tmp_path: Path) -> Path:
    base, tuned = model(), tune(model())
    write_safetensors(tmp_path / "base.safetensors", base)
    write_safetensors(tmp_path / "tuned.safetensors", tuned)
    write_safetensors(tmp_path / "next.safetensors", tune(tuned, seed=5))
    diffpack.extract(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / "d.dpk").close()
    diffpack.extract(tmp_path / "tuned.safetensors", tmp_path / "next.safetensors", tmp_path / "e.dpk").close()
    diffpack.convert(tmp_path / "d.dpk", tmp_path / "patch.safetensors", base=tmp_path / "base.safetensors")
    write_safetensors(tmp_path / "weights.safetensors", {name: np.ones((), np.float32) for name in tuned})
    return tmp_path


BASE, TUNED = "base.safetensors", "tuned.safetensors"
VERBS: dict[str, tuple[str, Verb]] = {
    "extract": (TUNED, lambda at, tell: diffpack.extract(at / BASE, at / TUNED, at / "new.dpk", progress=tell)),
    "extract, base": (BASE, lambda at, tell: diffpack.extract(at / BASE, at / TUNED, at / "new.dpk", progress=tell)),
    "extract into memory": (TUNED, lambda at, tell: diffpack.extract(at / BASE, at / TUNED, progress=tell)),
    "extract, lossy": (
        TUNED,
        lambda at, tell: diffpack.extract(at / BASE, at / TUNED, at / "new.dpk", density=0.5, progress=tell),
    ),
    "extract, budget": (
        TUNED,
        lambda at, tell: diffpack.extract(at / BASE, at / TUNED, at / "new.dpk", budget="5kB", progress=tell),
    ),
    "extract, weighed": (
        "weights.safetensors",
        lambda at, tell: diffpack.extract(
            at / BASE, at / TUNED, at / "new.dpk", budget="5kB", importance=at / "weights.safetensors", progress=tell
        ),
    ),
    "compose": (
        BASE,
        lambda at, tell: diffpack.compose(
            [at / "d.dpk", at / "e.dpk"], at / "new.dpk", base=at / BASE, progress=tell
        ),
    ),
    "invert": (BASE, lambda at, tell: diffpack.invert(at / "d.dpk", at / "new.dpk", base=at / BASE, progress=tell)),
    "merge": (
        BASE,
        lambda at, tell: diffpack.merge(
            [at / "d.dpk", at / "d.dpk"], at / "new.dpk", base=at / BASE, progress=tell
        ),
    ),
    "rebase": (
        "next.safetensors",
        lambda at, tell: diffpack.rebase(
            at / "d.dpk", at / "next.safetensors", at / "new.dpk", base=at / BASE, progress=tell
        ),
    ),
    "import": (
        "patch.safetensors",
        lambda at, tell: diffpack.convert(
            at / "patch.safetensors", at / "new.dpk", base=at / BASE, progress=tell
        ),
    ),
    "apply": (BASE, lambda at, tell: diffpack.apply(at / BASE, at / "d.dpk", at / "new", progress=tell)),
    "apply, unverified": (
        BASE,
        lambda at, tell: diffpack.apply(at / BASE, at / "d.dpk", at / "new.bin", verify=False, progress=tell),
    ),
    "a diff": ("d.dpk", lambda at, tell: diffpack.apply(at / BASE, at / "d.dpk", at / "new.h5", progress=tell)),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_an_input_that_is_overwritten_meanwhile_is_told_and_nothing_is_kept(work, verb):
    name, run = VERBS[verb]
    before = sorted(os.listdir(work))
    overwriting = Overwriting(work / name)
    with pytest.raises(CheckpointError, match=rf"{name}: changed while it was read"):
        run(work, overwriting)
    assert overwriting.done
    assert sorted(os.listdir(work)) == before


@pytest.mark.parametrize("name", ["two.safetensors", "model.safetensors.index.json", "config.json"])
def test_shards_their_index_and_side_files_are_inputs(tmp_path, name):
    for folder in ("base", "tuned"):
        shards = {"one.safetensors": {"a": np.ones(9000, np.float32)}, "two.safetensors": model()}
        write_shards(tmp_path / folder, shards)
        (tmp_path / folder / "config.json").write_text("{}" * 2000)
    with pytest.raises(CheckpointError, match=rf"{name}: changed while it was read"):
        diffpack.extract(tmp_path / "base", tmp_path / "tuned", progress=Overwriting(tmp_path / "tuned" / name))


@pytest.mark.parametrize("to", ["scipy", "hdf5", "sglang-delta", "sparse-safetensors", "peft-shira"])
def test_exports_are_refused_too(tmp_path, to, monkeypatch):
    base, tuned = {"l.weight": np.zeros((40, 50), np.float32)}, {"l.weight": np.eye(40, 50, dtype=np.float32)}
    path = write_safetensors(tmp_path / "base.safetensors", base)
    diffpack.extract(path, write_safetensors(tmp_path / "tuned.safetensors", tuned), tmp_path / "d.dpk").close()
    overwrite = Overwriting(path)
    for module, function in ((scipy_npz, "to_bytes"), (hdf5, "to_bytes"), (safetensors_writer, "parse_header")):
        monkeypatch.setattr(module, function, first(overwrite, getattr(module, function)))
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CheckpointError, match="changed while it was read"):
        diffpack.convert(tmp_path / "d.dpk", tmp_path / "out", to=to, base=path)
    assert sorted(os.listdir(tmp_path)) == before


def first(before: Callable[[], None], function: Callable[..., object]) -> Callable[..., object]:
    """A function that does something else before it does its own."""

    def both(*given: object) -> object:
        before()
        return function(*given)

    return both


def test_a_fingerprint_is_of_one_state(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / "m.safetensors", model())
    monkeypatch.setattr(fingerprint, "combine", first(Overwriting(path), fingerprint.combine))
    with pytest.raises(CheckpointError, match="changed while it was read"):
        diffpack.fingerprint(path)


@pytest.mark.parametrize("run", [diffpack.load, lambda base, diff: diffpack.verify(diff, base)])
def test_load_and_verify_notice_it(work, monkeypatch, run):
    monkeypatch.setattr(Result, "_runs", first(Overwriting(work / BASE), Result._runs))
    with pytest.raises(CheckpointError, match="changed while it was read"):
        run(work / BASE, work / "d.dpk")

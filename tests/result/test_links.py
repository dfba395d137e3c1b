"""A base that is the result already is written as it is; another link of a chain is told by its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.errors import WrongBaseError
from tests.tools.command_line import fails, ok, run
from tests.tools.models import bits, model, tune, write_safetensors, write_shards

LINKS = 4


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """m0 to m4, and d1 to d4 from each to the next."""
    monkeypatch.chdir(tmp_path)
    state = model()
    write_safetensors(tmp_path / "m0.safetensors", state, {"format": "pt"})
    for at in range(1, LINKS + 1):
        state = tune(state, 0.05, at)
        write_safetensors(tmp_path / f"m{at}.safetensors", state, {"format": "pt", "step": str(at)})
        diffpack.extract(f"m{at - 1}.safetensors", f"m{at}.safetensors", f"d{at}.dpk").close()
    return tmp_path


def digest(path: Path | str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize("more", [(), ("--no-verify",)])
def test_apply_on_the_result_writes_it_as_it_is_and_says_so(chain: Path, more: tuple[str, ...]) -> None:
    told = ok("apply", "--base", "m2.safetensors", "d2.dpk", "-o", "out.safetensors", *more)
    assert "base    is the result of the diff already: written as it is" in told
    assert digest("out.safetensors") == digest("m2.safetensors")
    ok("apply", "--base", "m2.safetensors", "d2.dpk", "-o", "out.bin", *more)
    assert diffpack.fingerprint("out.bin") == diffpack.fingerprint("m2.safetensors")
    report = json.loads(ok("apply", "--base", "m2.safetensors", "d2.dpk", "-o", "again.safetensors", "--json"))
    assert report["already"]
    assert report["fingerprint"] == diffpack.fingerprint("m2.safetensors")
    first = json.loads(ok("apply", "--base", "m1.safetensors", "d2.dpk", "-o", "first.safetensors", "--json"))
    assert not first["already"]


def test_an_output_that_exists_is_still_not_replaced_without_force(chain: Path) -> None:
    Path("out.safetensors").write_bytes(b"mine")
    args = ("apply", "--base", "m2.safetensors", "d2.dpk", "-o")
    fails(2, "exists", *args, "out.safetensors")
    assert digest("out.safetensors") == b"mine"
    fails(2, "also an input", *args, "m2.safetensors", "--force")
    ok(*args, "out.safetensors", "--force")
    assert digest("out.safetensors") == digest("m2.safetensors")


def folder(path: Path, config: str, scale: float) -> Path:
    arrays = model()
    parts = {"a.safetensors": {"embed": arrays["embed"] * np.float32(scale)}, "b.safetensors": {"ids": arrays["ids"]}}
    write_shards(path, parts)
    (path / "config.json").write_text(config)
    (path / "custom.py").write_text("import os\n")
    (path / "README.md").write_text("a page")
    return path


def test_a_folder_that_is_the_result_is_written_with_its_side_files(tmp_path: Path) -> None:
    base, tuned = folder(tmp_path / "base", "{}", 1), folder(tmp_path / "tuned", '{"a": 1}', 2)
    diffpack.extract(base, tuned, tmp_path / "d.dpk").close()
    opened = diffpack.open_checkpoint(tuned)
    done = diffpack.apply(opened, tmp_path / "d.dpk", tmp_path / "out")
    assert done.already
    assert opened.left_out == []
    for name in ("a.safetensors", "b.safetensors", "config.json", "model.safetensors.index.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tuned / name).read_bytes()
    assert not (tmp_path / "out" / "custom.py").exists()
    diffpack.apply(tuned, tmp_path / "d.dpk", tmp_path / "code", code=True)
    assert (tmp_path / "code" / "custom.py").exists()


@pytest.mark.parametrize("options", [{"values": "f16"}, {"profile": "smallest"}, {"budget": "20%"}])
def test_whatever_the_diff_is(tmp_path: Path, options: dict[str, str]) -> None:
    base, tuned = model(), tune(model(), 0.5)
    diff = diffpack.extract(base, tuned, **options)
    result = diffpack.load(base, diff)
    write_safetensors(tmp_path / "result.safetensors", result)
    assert diffpack.apply(tmp_path / "result.safetensors", diff, tmp_path / "out.safetensors").already
    assert bits(diffpack.load(tmp_path / "out.safetensors", diffpack.extract(result, result))) == bits(result)


def test_removed_and_renamed_tensors_do_not_hide_it(tmp_path: Path) -> None:
    base = model()
    tuned = {f"m.{name}": array for name, array in tune(base).items() if name != "embed"} | {"head": np.ones(3)}
    write_safetensors(tmp_path / "tuned.safetensors", tuned)
    diff = diffpack.extract(base, tuned)
    assert diff.manifest.removed
    assert diffpack.apply(tmp_path / "tuned.safetensors", diff, tmp_path / "out.safetensors").already


PLACES = {
    "m0": "it is an earlier link of the chain: apply d1.dpk, d2.dpk first",
    "m1": "it is an earlier link of the chain: apply d2.dpk first",
    "m4": "it is a later link of the chain, the result of d4.dpk: d3.dpk is in it already",
}


@pytest.mark.parametrize("base", PLACES)
def test_another_link_is_told_by_its_place(chain: Path, base: str) -> None:
    told = fails(10, f"not the base.*{PLACES[base]}", "apply", "--base", f"{base}.safetensors", "d3.dpk", "-o", "o.bin")
    assert "fingerprint expected" in told
    assert not Path("o.bin").exists()
    calls: list[Callable[[], object]] = [
        lambda: diffpack.load(f"{base}.safetensors", "d3.dpk"),
        lambda: diffpack.verify("d3.dpk", f"{base}.safetensors"),
        lambda: diffpack.compose("d3.dpk", base=f"{base}.safetensors"),
        lambda: diffpack.invert("d3.dpk", base=f"{base}.safetensors"),
    ]
    for call in calls:
        with pytest.raises(WrongBaseError, match=PLACES[base]):
            call()


def test_load_and_verify_say_that_it_is_the_result(chain: Path) -> None:
    for call in (diffpack.load, lambda base, diff: diffpack.verify(diff, base)):
        with pytest.raises(WrongBaseError, match=r"it is the result of d3\.dpk already"):
            call("m3.safetensors", "d3.dpk")


def test_without_the_chain_nothing_is_made_up(chain: Path) -> None:
    for name in ("d1.dpk", "d2.dpk"):
        Path(name).unlink()
    Path("d9.dpk").write_bytes(b"no diff")
    told = run("apply", "--base", "m0.safetensors", "d3.dpk", "-o", "o.bin").stderr
    assert "not the base of d3.dpk" in told
    assert "link" not in told


def test_compose_says_the_order_that_follows_and_what_is_missing(chain: Path) -> None:
    for name, message in (
        ("d1", r"in this order they follow one another: d1\.dpk, d2\.dpk, d3\.dpk"),
        ("d4", r"in this order they follow one another: d2\.dpk, d3\.dpk, d4\.dpk"),
    ):
        with pytest.raises(WrongBaseError, match=message):
            diffpack.compose(["d2.dpk", f"{name}.dpk", "d3.dpk"])
    with pytest.raises(WrongBaseError, match=r"between them are missing: d2\.dpk, d3\.dpk"):
        diffpack.compose(["d1.dpk", "d4.dpk"])
    with pytest.raises(WrongBaseError, match=r"it is the result of d1\.dpk already"):
        diffpack.compose(["d1.dpk", "d2.dpk"], base="m1.safetensors")
    with pytest.raises(WrongBaseError, match=r"later link of the chain, the result of d2\.dpk: d1\.dpk is in it"):
        diffpack.compose(["d1.dpk", "d2.dpk"], base="m2.safetensors")


def test_a_circle_of_diffs_ends(chain: Path) -> None:
    diffpack.invert("d2.dpk", "undo.dpk").close()
    with pytest.raises(WrongBaseError, match=r"earlier link of the chain: apply d2\.dpk first"):
        diffpack.load("m1.safetensors", "d3.dpk")
    with pytest.raises(WrongBaseError, match="not made on the result"):
        diffpack.compose(["d2.dpk", "d2.dpk", "undo.dpk"])

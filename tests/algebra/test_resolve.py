"""Diffs that compare tensors with base tensors of other names do what those do that go by name, or are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.algebra.resolve import by_own_names, chain_by_own_names
from diffpack.bridges.registry import FORMATS
from diffpack.checkpoints import open_checkpoint
from diffpack.errors import BaseNeededError, DiffpackError, UsageError, WrongBaseError
from tests.tools.chains import RENAMES, chains, rename_arrays
from tests.tools.models import Arrays, bits, write_safetensors
from tests.tools.sources import any_source, no_source

LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
PROFILES = st.sampled_from(["compact", "portable", "smallest"])


def copied(base: Arrays, tuned: Arrays, **options: Any) -> diffpack.Diff:
    with any_source():
        diff = diffpack.extract(base, tuned, allow_removed=True, **options)
    assume(diff.manifest.copies)
    return diff


def by_name(base: Arrays, tuned: Arrays, **options: Any) -> diffpack.Diff:
    with no_source():
        diff = diffpack.extract(base, tuned, allow_removed=True, **options)
    assert diff.manifest.copies is None
    return diff


def matrices(count: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {f"layers.{at}.weight": rng.standard_normal((40, 16)).astype(np.float32) for at in range(count)}


def shifted(base: Arrays, by: int = 1, seed: int = 1) -> Arrays:
    """Every layer what another one was, and a little elsewhere; a new tensor that is an old one."""
    rng, names = np.random.default_rng(seed), sorted(base)
    moved = {
        name: base[names[(at + by) % len(names)]] + rng.standard_normal((40, 16)).astype(np.float32) / 500
        for at, name in enumerate(names)
    }
    return moved | {"head.weight": base[names[0]]}


BASE = matrices(4)
ONE, TWO = shifted(BASE), shifted(BASE, 2, 3)


def test_the_small_models_of_this_page_make_copies_by_themselves() -> None:
    diff = diffpack.extract(BASE, ONE)
    assert diff.manifest.copies == {f"layers.{at}.weight": f"layers.{(at + 1) % 4}.weight" for at in range(4)} | {
        "head.weight": "layers.0.weight"
    }


@settings(max_examples=150, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), PROFILES)
def test_apply_gives_the_tuned_checkpoint(states: list[Arrays], profile: str) -> None:
    base, tuned = states
    diff = copied(base, tuned, profile=profile)
    assert bits(diffpack.load(base, diff)) == bits(tuned)
    diffpack.verify(diff, base)


OPTIONS: list[dict[str, Any]] = [
    {}, {"values": "f16"}, {"values": "int8"}, {"values": "sign"}, {"density": 0.4, "values": "bf16"},
    {"target_error": 0.3}, {"profile": "smallest"},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")  # extraction meets numbers of any size
@settings(max_examples=150, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), st.sampled_from(OPTIONS))
def test_the_diff_by_own_names_gives_the_same_bits(states: list[Arrays], options: dict[str, Any]) -> None:
    base, tuned = states
    diff = copied(base, tuned, **options)
    resolved = by_own_names(diff, open_checkpoint(base), None)
    assert resolved.manifest.copies is None
    assert "copies" not in resolved.manifest.requires
    assert bits(diffpack.load(base, resolved)) == bits(diffpack.load(base, diff))
    diffpack.verify(resolved, base)


@settings(max_examples=150, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), PROFILES, st.sampled_from([(), *RENAMES]))
def test_the_undo_gives_the_base_back(states: list[Arrays], profile: str, rule: Any) -> None:
    base, tuned = states[0], rename_arrays(states[1], rule)
    try:
        diff = copied(base, tuned, profile=profile, rename=rule)
    except UsageError:  # two tensors would get one name
        return
    undo = diffpack.invert(diff, base=base)
    assert undo.exact
    assert bits(diffpack.load(tuned, undo)) == bits(base)
    diffpack.verify(undo, tuned)


@settings(max_examples=150, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=3), PROFILES)
def test_a_chain_gives_the_last_result(states: list[Arrays], profile: str) -> None:
    with any_source():
        links = [diffpack.extract(*pair, profile=profile, allow_removed=True) for pair in pairwise(states)]
    assume(any(link.manifest.copies for link in links))
    whole = diffpack.compose(links, base=states[0])
    assert whole.exact
    assert bits(diffpack.load(states[0], whole)) == bits(states[-1])
    diffpack.verify(whole, states[0])
    with pytest.raises(BaseNeededError, match="from base tensors of other names"):
        diffpack.compose(links)


def test_only_links_up_to_the_last_with_copies_are_looked_at() -> None:
    last = diffpack.extract(ONE, {name: array * np.float32(1.01) for name, array in ONE.items()})
    assert last.manifest.copies is None
    made = chain_by_own_names([diffpack.extract(BASE, ONE), last], open_checkpoint(BASE), None)
    assert made[1] is last
    assert chain_by_own_names([last], None, None) == [last]


@settings(max_examples=60, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=2), st.sampled_from(["linear", "ties"]))
def test_a_merge_is_that_of_diffs_by_name(states: list[Arrays], method: str) -> None:
    base, pair = states[0], states[1:]
    with any_source():
        ours = [diffpack.extract(base, tuned, allow_removed=True) for tuned in pair]
    assume(any(diff.manifest.copies for diff in ours))

    def merged(diffs: list[diffpack.Diff]) -> Any:
        density = 0.5 if method == "ties" else None
        try:
            return bits(diffpack.load(base, diffpack.merge(diffs, method=method, base=base, density=density)))
        except DiffpackError as error:
            return type(error)

    assert merged(ours) == merged([by_name(base, tuned) for tuned in pair])


def test_a_comparison_is_that_of_diffs_by_name() -> None:
    ours = diffpack.compare(diffpack.extract(BASE, ONE), diffpack.extract(BASE, TWO), BASE)
    plain = diffpack.compare(by_name(BASE, ONE), by_name(BASE, TWO), BASE)
    assert (ours.total, ours.tensors) == (plain.total, plain.tensors)
    assert ours.total.both > 0


def test_a_rebase_carries_the_result_or_the_float_change_over() -> None:
    same = diffpack.rebase(diffpack.extract(BASE, ONE), BASE, base=BASE)
    assert bits(diffpack.load(BASE, same.diff)) == bits(ONE)
    onto = {name: array + np.float32(0.5) for name, array in BASE.items()}
    ours = diffpack.rebase(diffpack.extract(BASE, ONE), onto, base=BASE)
    plain = diffpack.rebase(by_name(BASE, ONE), onto, base=BASE)
    assert bits(diffpack.load(onto, ours.diff)) == bits(diffpack.load(onto, plain.diff))
    assert (ours.exact, ours.as_floats, ours.left_out) == (plain.exact, plain.as_floats, plain.left_out)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("new", [True, False])
def test_another_tools_file_is_that_of_the_diff_by_name(format_name: str, new: bool, tmp_path: Path) -> None:
    base, tuned = write_safetensors(tmp_path / "base.safetensors", BASE), dict(ONE)
    if not new:
        del tuned["head.weight"]
    written = {}
    for name, make in (("ours", diffpack.extract), ("plain", by_name)):
        (tmp_path / name).mkdir()
        diff = make(base, tuned, output=tmp_path / name / "task.dpk")
        try:
            done = diffpack.convert(diff, tmp_path / name / "out", to=format_name, base=base)
        except DiffpackError as error:
            written[name] = type(error)
            continue
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file() and path.suffix != ".dpk")
        written[name] = done.exact, done.notes, [(path.name, path.read_bytes()) for path in files]
    assert written["ours"] == written["plain"]


def test_one_diff_alone_merges_into_itself() -> None:
    diff = diffpack.extract(BASE, ONE)
    alone = diffpack.merge([diff])
    assert alone.manifest == diff.manifest
    assert bits(diffpack.load(BASE, alone)) == bits(ONE)


def test_without_the_base_they_are_refused_by_name(tmp_path: Path) -> None:
    diff, other = diffpack.extract(BASE, ONE), diffpack.extract(BASE, TWO)
    needed = "head.weight from layers.0.weight.*give the base"
    for work in (
        lambda: diffpack.merge([diff, other]),
        lambda: diffpack.compose([diff]),
        lambda: diffpack.invert(diff),
        lambda: diffpack.compare(diff, other),
        lambda: diffpack.rebase(diff, TWO),
        lambda: diffpack.convert(diff, tmp_path / "out.safetensors", to="sparse-safetensors"),
    ):
        with pytest.raises(BaseNeededError, match=needed):
            work()
    assert not list(tmp_path.iterdir())


def test_another_base_is_refused() -> None:
    with pytest.raises(WrongBaseError):
        by_own_names(diffpack.extract(BASE, ONE), open_checkpoint(TWO), None)


def test_files_and_layout_stay_with_the_diff(tmp_path: Path) -> None:
    for name, tensors in (("base", BASE), ("tuned", ONE)):
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "model.safetensors", tensors, {"from": name})
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
    diff = diffpack.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "task.dpk")
    resolved = by_own_names(diff, open_checkpoint(tmp_path / "base"), None)
    assert (resolved.name, resolved.path) == (diff.name, diff.path)
    diffpack.apply(tmp_path / "base", resolved, tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "tuned" / name).read_bytes()
    back = diffpack.invert(diff, tmp_path / "back.dpk", base=tmp_path / "base")
    diffpack.apply(tmp_path / "tuned", back, tmp_path / "before")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()

"""Readers of older versions read what today's algebra and bridges make, of today's diffs and of the fixtures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.algebra.merge.methods import METHODS
from diffpack.diff.entries import PLAIN_PROFILES
from tests.tools import ORACLES, craft
from tests.tools.chains import chains
from tests.tools.conformance import CASES, base_of, content, told
from tests.tools.merging import diffs_of
from tests.tools.models import Arrays, model, tune
from tests.tools.old_readers import check

LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
BRIDGES = ORACLES / "bridges"
SOURCES = ["adapter", "delta", "matrices", "pytorch_diff.bin"]
WRITTEN = list(PLAIN_PROFILES)
PROFILES = [*WRITTEN, "smallest"]
READ = [
    case
    for case in CASES
    if case["expect"] == "valid" and case["folder"].name in ("v1.0", "v1.1") and case["file"] != "later-minor.dpk"
]
"""Fixtures that the kept readers read, but that whose header says more than it requires."""


def links(states: list[Arrays], **options: Any) -> list[diffpack.Diff]:
    return [diffpack.extract(*pair, rename=(), allow_removed=True, **options) for pair in itertools.pairwise(states)]


@settings(max_examples=60, deadline=None, suppress_health_check=LENIENT)
@given(chains(), st.sampled_from(PROFILES), st.sampled_from(["auto", "gaps", "levels"]), st.sampled_from(WRITTEN))
def test_any_chain_composed_and_undone(states: list[Arrays], profile: str, positions: str, written: str) -> None:
    diffs = links(states, profile=profile, positions=positions)
    composed = diffpack.compose(diffs, base=states[0], profile=written)
    check(composed, states[0], states[-1])
    check(diffpack.invert(composed, base=states[0], profile=written), states[-1], states[0])


@settings(max_examples=60, deadline=None, suppress_health_check=LENIENT)
@given(chains(links=1), st.sampled_from(PROFILES), st.sampled_from(WRITTEN), st.booleans())
def test_any_diff_under_other_names(states: list[Arrays], profile: str, written: str, turned: bool) -> None:
    (diff,) = links(states, profile=profile)
    name = (lambda name: name[::-1]) if turned else (lambda name: f"m.{name}")
    renamed = diffpack.rename(diff, name, base=states[0], profile=written).diff
    check(renamed, states[0], {name(key): array for key, array in states[1].items()})


@pytest.mark.parametrize("profile", WRITTEN)
@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_merged_diffs(method: str, sealed: bool, profile: str) -> None:
    base = model()
    diffs = diffs_of(base, [tune(base, 0.2, seed) for seed in (1, 2)], values="exact")
    options: dict[str, Any] = {"t": 0.5} if "slerp" in method else {}
    try:
        merged = diffpack.merge(diffs, method=method, base=base if sealed else None, profile=profile, **options)
    except diffpack.errors.BaseNeededError:
        assert not sealed
        return
    assert check(merged, base, diffpack.load(base, merged)) == (0 if sealed else 1)


@pytest.mark.parametrize("profile", WRITTEN)
@pytest.mark.parametrize("values", ["exact", "f32", "f16", "bf16", "int8"])
def test_diffs_on_another_base(values: str, profile: str) -> None:
    base, onto = model(), tune(model(), 0.3, 9)
    diff = diffpack.extract(base, tune(base, 0.2), values=values)
    moved = diffpack.rebase(diff, onto, base=base, profile=profile).diff
    assert check(moved, onto, diffpack.load(onto, moved)) == 0


@pytest.mark.parametrize("profile", WRITTEN)
@pytest.mark.parametrize("name", ["hdf5", "scipy", "sparse-safetensors", "sglang-delta"])
def test_diffs_that_were_in_another_format(tmp_path: Path, name: str, profile: str) -> None:
    for module in {"hdf5": ["h5py"], "scipy": ["scipy"], "sglang-delta": ["xxhash"]}.get(name, []):
        pytest.importorskip(module)
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((40, 30)).astype(np.float32), "b": rng.standard_normal(40).astype(np.float32)}
    tuned = tune(base, 0.2)
    out = tmp_path / ("there.safetensors" if name == "sparse-safetensors" else f"there.{name}")
    diffpack.convert(diffpack.extract(base, tuned), out, to=name, base=base)
    back = diffpack.convert(out, tmp_path / "back.dpk", from_=name, base=base, profile=profile)
    assert check(back.diff, base, diffpack.load(base, back.diff)) == 0


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in BRIDGES.glob("*/base.safetensors")), ids=lambda path: path.name
)
def test_diffs_made_of_what_other_tools_wrote(folder: Path) -> None:
    (source,) = (folder / name for name in SOURCES if (folder / name).exists())
    from_ = "scipy" if folder.name == "scipy" else None
    base = folder / "base.safetensors"
    diff = diffpack.convert(source, base=base, from_=from_).diff
    factors = any(record.factors is not None for record in diff.values())
    assert check(diff, base, diffpack.load(base, diff)) == (2 if factors else 0)


@pytest.mark.parametrize("case", READ, ids=told)
def test_what_is_made_of_a_fixture_needs_nothing_newer(case: dict[str, Any], tmp_path: Path) -> None:
    """Chunks of codings that nothing chooses any more (classes) are copied as they are."""
    path, base, result = case["folder"] / case["file"], base_of(case), case["folder"] / case["result"]
    data = path.read_bytes()
    needed = check(path, base, result)
    named = tmp_path / "named.safetensors"
    named.write_bytes(craft.safetensors({f"m.{name}": raw for name, raw in content(result).items()}))
    assert check(diffpack.rename(data, [("", "m.")], base=base).diff, base, named) <= needed
    if diffpack.open(data).exact:
        assert check(diffpack.compose([data], base=base), base, result) <= needed
        check(diffpack.invert(data, base=base), result, base)

"""The benchmark of times in small: tiny pairs, one round, and what its page says of rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.size.contenders import CONTENDERS
from benchmarks.speed import fine_tunes, made, measure, plot, report, results
from benchmarks.speed.made import JOINED, KINDS, SMALL
from benchmarks.speed.results import APPLY, EXTRACT, Row
from diffpack.checkpoints import open_checkpoint
from diffpack.format.features import PROFILES
from tests.tools import ROOT


def row(kind: str, size: int, tool: str, verb: str, seconds: float, nbytes: int = 1000, peak: float = 100.0) -> Row:
    return Row(kind, size, tool, verb, seconds, 1.0, nbytes, peak, "a machine")


def rows(*given: Row) -> dict[tuple[str, int, str, str], Row]:
    return {one.key: one for one in given}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_pairs_have_their_size_and_change_what_they_say(kind: made.Kind, tmp_path: Path) -> None:
    base, tuned = made.pair_of(kind.name, 1, tmp_path)
    assert abs(base.stat().st_size - 1e6) < 2e4
    one, other = open_checkpoint(base), open_checkpoint(tuned)
    differing = [np.mean(one.words(name) != other.words(name)) for name in one.tensors]
    expected = {"sparse": 0.01, "RL-like": 0.033, "dense": 0.99}[kind.name]
    assert np.mean(differing) == pytest.approx(expected, rel=0.1)


def test_small_tensors_and_few_hold_the_same_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_SMALL", 40)
    pairs = [made.make_small(tmp_path / str(count), count) for count in (40, 20)]
    for side in (0, 1):
        many, few = (open_checkpoint(pair[side]) for pair in pairs)
        assert (len(many.tensors), len(few.tensors)) == (40, 20)
        words = [np.concatenate([one.words(name) for name in sorted(one.tensors)]) for one in (many, few)]
        assert np.array_equal(*words)


def test_a_pair_is_measured_and_compared_with_plain_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROUNDS", 1)
    pair = made.pair_of("sparse", 1, tmp_path)
    found = measure.measure("sparse", 1, pair, tmp_path, "a machine")
    assert {(one.tool, one.verb) for one in found} == {
        (tool, verb) for tool in ("plain", *(f"diffpack {name}" for name in PROFILES)) for verb in (EXTRACT, APPLY)
    }
    plain = {one.verb: one for one in found if one.tool == "plain"}
    assert all(one.ratio == one.seconds / plain[one.verb].seconds for one in found)
    peer = next(one for one in CONTENDERS if one.module == "gaps")
    theirs = measure.measure_peer(peer, Path(sys.executable), pair, tmp_path, plain)
    assert [one.verb for one in theirs] == [EXTRACT, APPLY]
    assert all(one.diff_bytes > 0 for one in theirs)
    results.write(tmp_path / "speed.csv", found)
    assert results.read(tmp_path / "speed.csv") == rows(*found)


def test_ten_fine_tunes_in_one_run_are_ten_diffs(tmp_path: Path) -> None:
    found = fine_tunes.measure(tmp_path, "a machine", megabytes=1)
    assert 0 < found.ratio < 2
    assert found.diff_bytes > 0
    assert not any(tmp_path.iterdir())


def test_another_result_than_the_tuned_file_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(SystemExit, match="not the bytes of"):
        measure.check_same(tmp_path / "a", tmp_path / "b")


def test_claims_are_held_or_missed() -> None:
    smallest, compact = "diffpack smallest", "diffpack compact"
    given = rows(
        row("RL-like", 1000, smallest, EXTRACT, 5.0, nbytes=900), row("RL-like", 1000, compact, EXTRACT, 1.0),
        row("RL-like", 1000, smallest, APPLY, 2.0, nbytes=900), row("RL-like", 1000, compact, APPLY, 1.0),
        row(SMALL, 147, compact, EXTRACT, 2.0), row(JOINED, 147, compact, EXTRACT, 1.0),
        row(SMALL, 147, smallest, EXTRACT, 4.0, nbytes=1010), row(JOINED, 147, smallest, EXTRACT, 1.0),
    )  # fmt: skip
    said = {claim.what: claim.holds for claim in report.claims(given)}
    assert said["RL-like, 1000 MB: extract, smallest / reading and hashing"] is False
    assert said["RL-like, 1000 MB: apply, smallest / compact"] is True
    assert said["RL-like, 1000 MB: bytes of smallest / compact"] is True
    assert said[f"{SMALL}, 147 MB: bytes of smallest / compact"] is False
    assert said["18,000 tensors / 20: extract, compact"] is True
    assert said["18,000 tensors / 20: extract, smallest"] is False
    assert said["RL-like, 1000 MB: diffpack smallest, peak anonymous memory, MB"] is True
    many = rows(
        row("sparse", 4000, compact, EXTRACT, 1.0, peak=401.0),
        row("ten fine-tunes", 500, "diffpack one run", EXTRACT, 0.6),
    )
    assert {claim.what: claim.holds for claim in report.claims(many)} == {
        "sparse, 4000 MB: diffpack compact, peak anonymous memory, MB": False,
        "ten fine-tunes, 500 MB each: one run / ten runs": True,
    }


def test_the_page_holds_the_rows_of_the_last_run() -> None:
    known = results.read(ROOT / "benchmarks" / "results" / "speed.csv")
    page = (ROOT / "docs" / "speed.md").read_text()
    assert known
    assert report.tables(known) in page
    for claim in report.claims(known):
        assert claim.what in page


def test_a_drawing_is_made_of_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    given = [
        row("sparse", size, tool, verb, size / 10)
        for size in (10, 100)
        for tool in ("plain", "diffpack compact")
        for verb in (EXTRACT, APPLY)
    ]
    plot.draw(rows(*given), tmp_path / "speed.svg")
    assert "sparse" in (tmp_path / "speed.svg").read_text()

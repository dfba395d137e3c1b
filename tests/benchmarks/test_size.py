"""The benchmark of sizes in small: a tiny pair, the peers that need nothing extra, no network."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.page import placed
from benchmarks.size import __main__ as command
from benchmarks.size import contenders, measure, report, results
from benchmarks.size.catalogue import Pair
from benchmarks.size.contenders import BUILT_IN, CONTENDERS, Contender
from benchmarks.size.entropy import facts
from benchmarks.size.results import BOUND, Row
from diffpack.format.features import PROFILES
from tests.tools import ROOT
from tests.tools.models import write_safetensors

SMALL = [c for c in CONTENDERS if c.module is None or c.module in BUILT_IN]
ABSENT = Contender("absent", "absent", "absent")


class OnePair:
    """A catalogue of one tiny pair, under the name of a real one."""

    def __init__(self, base: Path, tuned: Path) -> None:
        self.pair = Pair("sparse-f32", "tiny", base, tuned)

    def files(self, name: str) -> Pair:
        assert name == self.pair.name
        return self.pair


@pytest.fixture
def options(tmp_path, monkeypatch):
    tools = (*SMALL, ABSENT)
    monkeypatch.setattr(command, "CONTENDERS", tools)
    monkeypatch.setattr(command, "TOOLS", (BOUND, *(tool.name for tool in tools)))
    monkeypatch.setattr(measure, "ROUNDS", 1)
    return argparse.Namespace(
        csv=tmp_path / "size.csv", peers=Path(sys.executable), limit=120, again="", tools=[], pairs=["sparse-f32"]
    )


def test_a_run_in_small_is_exact_resumable_and_can_be_measured_again(pair, options, monkeypatch):
    catalogue = OnePair(*pair)
    done = command.run(options, catalogue)
    exact = {tool for (_, tool), row in done.items() if row.exact == "yes"}
    assert exact == {tool.name for tool in SMALL}
    assert done["sparse-f32", "absent"].note.startswith("not installed")
    assert done["sparse-f32", "absent"].size == -1
    assert all(row.size > 0 for (_, tool), row in done.items() if tool != "absent")
    assert results.read(options.csv) == done

    measured = []
    monkeypatch.setattr(
        command, "measure", lambda tool, *_: measured.append(tool.name) or done["sparse-f32", tool.name]
    )
    assert command.run(options, catalogue) == done
    assert measured == []
    options.again = "diffpack,COO"
    assert command.run(options, catalogue) == done
    wanted = [f"diffpack {profile}" for profile in PROFILES]
    assert measured[: len(wanted)] == wanted
    assert all(name.startswith("COO") for name in measured[len(wanted) :])
    assert len(measured) > len(wanted)
    results.rewrite(options.csv, list(done.values()))
    assert results.read(options.csv) == done


def test_every_contender_has_its_file_and_every_peer_is_pinned():
    pins = (ROOT / "benchmarks" / "requirements-peers.txt").read_text()
    for contender in CONTENDERS:
        if contender.module:
            assert (ROOT / "benchmarks" / "size" / "peers" / f"{contender.module}.py").exists()
            assert contender.module in BUILT_IN or f"\n{contender.package}==" in pins
    assert set(BUILT_IN) <= {contender.module for contender in CONTENDERS}


def test_one_flipped_bit_is_not_exact(tmp_path):
    wanted = write_safetensors(tmp_path / "a", {"w": np.zeros(8, np.float32), "n": np.ones(2, np.int64)})
    negative = np.zeros(8, np.float32)
    negative[3] = -0.0
    found = write_safetensors(tmp_path / "b", {"w": negative, "n": np.ones(2, np.int64)})
    assert measure.compared(wanted, wanted) == ("yes", "")
    assert measure.compared(wanted, found) == ("no", "1 of 10 words differ")
    other = write_safetensors(tmp_path / "c", {"w": np.zeros(8, np.float64), "x": np.ones(2, np.int64)})
    exact, note = measure.compared(wanted, other)
    assert exact == "no"
    assert note == "1 tensors missing, 1 too many; 1 tensors of another dtype or shape"
    (tmp_path / "d").write_bytes(wanted.read_bytes()[::-1])
    assert measure.compared(wanted, tmp_path / "d")[0] == "no"


def test_a_process_that_fails_or_takes_too_long_says_so():
    with pytest.raises(measure.FailedError, match=r"^over 0\.2 s$"):
        measure.timed([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    with pytest.raises(measure.FailedError, match=r"^fails: ValueError: no such thing$"):
        measure.timed([sys.executable, "-c", "raise ValueError('no such thing\\nand more')"], 60)


def test_the_bound_is_that_of_positions_and_steps(tmp_path):
    base = np.ones(1000, np.float32)
    tuned = base.copy()
    up, down = np.float32(np.inf), np.float32(-np.inf)
    tuned[:125] = np.nextafter(tuned[:125], up)
    tuned[125:250] = np.nextafter(tuned[125:250], down)
    files = [write_safetensors(tmp_path / name, {"p.w": array}) for name, array in (("a", base), ("b", tuned))]
    files[1] = write_safetensors(tmp_path / "b", {"w": tuned, "head": np.ones(10, np.float32)})
    found = facts(Pair("x", "", *files, prefix="p."))
    assert (found.tensor_bytes, found.words, found.changed) == (4040, 1010, 260)
    positions = -1000 * (0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert found.bound == math.ceil((positions + 250 * 1) / 8) + 40


def row(tool: str, size: int, exact: str = "yes") -> Row:
    return Row("rl-1e-6", tool, "", size, 10_000, 5_000, 100, 0.1, 0.1, exact, "", "a machine")


def test_the_verdict_counts_exact_peers_alone():
    good = [row("diffpack smallest", 80), row("peer", 81), row("lossy", 10, "no"), row("broken", -1, "-")]
    assert report.verdict(good)[1]
    assert not report.verdict([*good, row("better", 79)])[1]
    assert not report.verdict([replace(good[0], exact="no"), *good[1:]])[1]
    assert not report.verdict([row("diffpack smallest", 83), row("peer", 100)])[1]  # 6.64 bits, the bound is 6.6


def test_the_committed_page_is_that_of_the_committed_rows():
    path = ROOT / "benchmarks" / "results" / "size.csv"
    rows = list(results.read(path).values())
    page = (ROOT / "docs" / "size.md").read_text()
    assert placed(page, report.BEGIN, report.END, report.sections(rows)) == page
    with path.open(newline="") as file:
        for item in csv.DictReader(file):
            if item["percent"]:
                assert float(item["percent"]) == pytest.approx(
                    100 * int(item["size"]) / int(item["tensor_bytes"]), abs=1e-4
                )


def test_the_committed_rows_have_every_pair_and_diffpack_exact_everywhere():
    rows = results.read(ROOT / "benchmarks" / "results" / "size.csv")
    for name in report.BY_NAME:
        for profile in PROFILES:
            assert rows[name, f"{contenders.OURS} {profile}"].exact == "yes"
        assert rows[name, BOUND].size > 0

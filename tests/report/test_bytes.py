"""Every byte a report speaks of is a byte of the file: summed another way, by the second reader and the file system."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import diffpack
from diffpack.report.document import document
from diffpack.report.parts import BY, parts_by
from diffpack.report.rows import plain
from diffpack.report.stats import stats
from diffpack.report.tables import BYTES
from tests.tools import ROOT
from tests.tools.models import model, tune, write_shards

FIXTURES = sorted((ROOT / "fixtures").glob("v1.*/*.dpk"))
CHOICES = {
    "exact": {},
    "smallest": {"profile": "smallest"},
    "portable": {"profile": "portable"},
    "f16": {"values": "f16"},
    "int8": {"density": 0.05, "values": "int8"},
    "budget": {"budget": 6000},
    "factors": {"values": "lowrank", "rank": 2},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Diffs of every way of storing, of model folders with side files."""
    rng = np.random.default_rng(3)
    wide = {f"layer.{at}.w": rng.standard_normal((200, 40)).astype(np.float32) for at in range(12)}
    for name, tensors in {"base": model() | wide, "tuned": tune(model() | wide, 0.2)}.items():
        write_shards(tmp_path / name, {"a.safetensors": tensors})
        (tmp_path / name / "config.json").write_text(name)
    (tmp_path / "diffs").mkdir()
    for name, choice in CHOICES.items():
        diffpack.extract(tmp_path / "base", tmp_path / "tuned", tmp_path / "diffs" / f"{name}.dpk", **choice)
    return tmp_path / "diffs"


def test_the_parts_of_a_file_are_the_file(folder):
    for path in [*folder.glob("*.dpk"), *FIXTURES]:
        row = plain(document(stats(path, tensors=False)).diffs[0])
        size = path.stat().st_size
        assert row["bytes"] == size
        assert sum(row[member] for member in BYTES.values()) == size
        assert row["weight_bytes"] == size - row["side_file_bytes"]
        assert row["file_bytes"] == row["layout_bytes"] + row["side_file_bytes"]
        assert row["frame_bytes"] == 88  # 16 of the header, 72 of the trailer


def test_tensors_and_their_sums_are_the_chunks_that_hold_records(folder):
    for path in folder.glob("*.dpk"):
        with diffpack.open(path) as diff:
            ours = stats(diff).diffs[0]
            stored = sum(chunk.nbytes for chunk in diff.chunks[: diff.coded_chunks])
        assert sum(item.nbytes for item in ours.tensors) == stored
        assert ours.factor_bytes + ours.position_bytes + ours.value_bytes == stored
        assert sum(item.nbytes for item in ours.codings) == stored
        assert sum(item.records for item in ours.codings) == ours.records == len(ours.tensors)
        for by in BY:
            parts = parts_by(by, ours.tensors)
            assert sum(part.nbytes for part in parts) == stored
            assert sum(part.changed for part in parts) == ours.changed
            assert sum(part.records for part in parts) == ours.records


def test_the_second_reader_counts_the_same(folder):
    """Chunks, manifest and what stands around them, from the file's own trailer, without the library."""
    for path in folder.glob("*.dpk"):
        raw = path.read_bytes()
        offset, stored = (int.from_bytes(raw[-72 + at : -64 + at], "little") for at in (0, 8))
        row = document(stats(path, tensors=False)).diffs[0]
        assert row.manifest_bytes == stored
        chunks = sum(getattr(row, f"{part}_bytes") for part in ("factor", "position", "value", "layout", "side_file"))
        assert chunks == offset - 16
        assert offset + stored + 72 == len(raw)


def test_sums_of_all_diffs_are_those_of_the_files(folder):
    told = plain(document(stats(folder, tensors=False)))
    sizes = {str(path): path.stat().st_size for path in folder.glob("*.dpk")}
    assert {row["path"]: row["bytes"] for row in told["diffs"]} == sizes
    whole = sum(sizes.values())
    assert told["together"]["diff_bytes"] == sum(row["diff_bytes"] for row in told["families"]) == whole
    assert told["together"]["total_bytes"] == whole + told["together"]["base_bytes"]
    assert told["families"][0]["stored_bytes"] == whole - told["together"]["side_file_bytes"] + told["families"][0][
        "base_bytes"
    ]  # fmt: skip
    json.dumps(told, allow_nan=False)

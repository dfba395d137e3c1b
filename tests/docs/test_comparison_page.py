"""The comparison's numbers are those that were measured, and where a number is not, it says so."""

from __future__ import annotations

import re

from tests.tools.page_blocks import DOCS

PAGE = (DOCS / "comparison.md").read_text()
BYTES, EXTRACT, APPLY, MEMORY = 0, 2, 4, 6
"""Columns of the tables of times, behind the tool's name."""
SIZES = {text.partition("\n")[0]: text for text in (DOCS / "size.md").read_text().split("\n## ")}


def test_its_sizes_are_the_measured_ones():
    table = PAGE.split("## Numbers")[1].split("## ")[0]
    pairs = re.findall(r"size\.md#([\w-]+)\)", next(line for line in table.splitlines() if line.startswith("| |")))
    rows = re.findall(r"^\| ([^|]+?) \| (.*) \|$", table, re.MULTILINE)
    assert len(pairs) == 4
    assert len(rows) > 10
    for tool, numbers in rows:
        for pair, shown in zip(pairs, numbers.split(" | "), strict=True):
            row = re.search(rf"^\| {re.escape(tool)} \| (.*) \|$", SIZES[pair], re.MULTILINE)
            assert row, (tool, pair)
            measured = row[1].split(" | ")
            assert shown == (measured[1] if measured[1] != "-" else measured[-1]), (tool, pair)


def test_its_times_and_bytes_of_speed_are_the_measured_ones():
    speed = {text.partition("\n")[0]: text for text in (DOCS / "speed.md").read_text().split("\n### ")}

    def column(pair: str, tool: str, at: int) -> str:
        row = re.search(rf"^\| \**{re.escape(tool)}\** \| (.*) \|$", speed[pair], re.MULTILINE)
        assert row, (pair, tool)
        return row[1].split(" | ")[at]

    ahead = " ".join(PAGE.split("## Where others are ahead")[1].split())
    sparse, dense, large = "sparse, 90 MB", "dense, 90 MB", "RL-like, 1,000 MB"
    of, made = "diffpack compact", f"makes {column(sparse, 'bsdiff4', BYTES)} bytes where diffpack makes"
    assert f"{made} {column(sparse, of, BYTES)}, in" in ahead
    seconds = float(column(sparse, "bsdiff4", EXTRACT)), float(column(sparse, of, EXTRACT))
    assert f"[{seconds[0]:.0f} s where diffpack takes {seconds[1]:.1f}]" in ahead
    gaps = column(sparse, "gaps, zstd-1 (NeMo-RL)", EXTRACT)
    assert f"[{gaps} s where `compact` takes {column(sparse, of, EXTRACT)}]" in ahead
    planes = column(dense, "XOR planes, zstd-3 (BitX)", EXTRACT)
    assert f"[{planes} s where it takes {column(dense, of, EXTRACT)}]" in ahead
    assert f"[{column(sparse, 'xdelta3', APPLY)} s where diffpack takes {column(sparse, of, APPLY)}]" in ahead
    assert f"[{column(large, 'reminis', MEMORY)} MB]" in ahead
    for pair in ("sparse, 1,000 MB", large, "dense, 1,000 MB"):
        rows = re.findall(r"^\| (?!\*|\||-)(\w.*?) \| \d.* \|$", speed[pair], re.MULTILINE)
        assert rows
        assert all(float(column(pair, tool, EXTRACT)) > 0.94 * float(column(pair, of, EXTRACT)) for tool in rows)


def test_its_times_of_live_models_are_the_measured_ones():
    measured = dict(
        re.findall(r"^\| (PEFT.*?|diffpack.*?) \| ([\d.]+) M?m?[sB] +\|", (DOCS / "live.md").read_text(), re.M)
    )
    shown = PAGE.split("## Where others are ahead")[1]
    for what, digits, unit in (
        ("PEFT SHiRA: `set_adapter`, median", 2, " ms"),
        ("diffpack: `use`, decoded, median", 2, " ms"),
        ("PEFT LoRA: `hotswap_adapter` from the file, median", 1, " ms"),
        ("diffpack: `use` from the file, median", 1, ""),
        ("diffpack: the file", 3, ""),
        ("PEFT LoRA: the file", 3, " MB"),
    ):
        assert f"{float(measured[what]):.{digits}f}{unit}" in shown, what

"""Tables for people: sums, words and bars; Markdown and lines of a spreadsheet of the same rows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest

import diffpack
from diffpack.report.document import document
from diffpack.report.markdown import markdown
from diffpack.report.rows import DiffRow, Document, plain, schema, words
from diffpack.report.spreadsheet import spreadsheet
from diffpack.report.stats import Stats, stats
from diffpack.report.tables import Table, bar, tables_of
from diffpack.support.amounts import shortened
from tests.tools import ROOT
from tests.tools.models import model, tune


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stats:
    """Two tasks, two links of a chain, a damaged file."""
    monkeypatch.chdir(tmp_path)
    base = model()
    diffpack.extract(base, tune(base, 0.05, 1), "a.dpk", base_name="org/base|x")
    diffpack.extract(base, tune(base, 0.05, 2), "b<b>.dpk", values="f16")
    week = tune(base, 0.9, 3)
    diffpack.extract(base, week, "w1.dpk")
    diffpack.extract(week, tune(week, 0.1, 4), "w2.dpk")
    Path("z.dpk").write_bytes(Path("a.dpk").read_bytes()[:-3])
    return stats(".", keep_going=True)


def cells(table: Table) -> list[str]:
    return [cell for row in table.rows for cell in row]


def test_tables_tell_tasks_totals_bytes_and_problems(found):
    tasks, totals, where, problems = tables_of(document(found))
    assert [row[0] for row in tasks.rows] == ["a.dpk", "b<b>.dpk", "w1.dpk", "└ w2.dpk"]
    assert tasks.title.startswith(f"base {found.diffs[0].base_fingerprint}\n     org/base|x, ")
    assert {row[4] for row in tasks.rows} >= {"exact", f"lossy {found.diffs[1].error:.4f}"}
    assert totals.rows[0][0] == "4 diffs of 3 models"
    assert [row[0] for row in totals.rows[1:]] == ["base + 4 diffs", "base + 4 adapters of 3.6 %", "4 full copies"]
    assert totals.rows[3][2] == "4.00 x"
    assert [column.title for column in where.columns][1:] == ["positions", "values", "manifest", "frame"]
    assert problems.rows == (("z.dpk", cells(problems)[1], "damaged, or no diff"),)


def test_dense_changes_are_told_as_the_most_if_not_counted(found):
    rows = tables_of(document(stats("w1.dpk", tensors=False)))[0].rows
    assert rows[0][1].startswith("<=")
    assert not tables_of(document(found))[0].rows[2][1].startswith("<=")


def test_tensors_and_parts_have_bars_for_their_bytes(found):
    told = document(found, tensors=True, by="layer")
    tables = tables_of(told)
    parts = next(table for table in tables if table.columns[1].title == "tensors")
    assert [row[0] for row in parts.rows] == ["(no layer)", "encoder.0", "encoder.1"]
    assert "█" * 10 in {row[-1] for row in parts.rows}
    assert sum(table.columns[0].title == "tensor" for table in tables) == 4


def test_bars_are_in_eighths_and_nothing_is_nothing():
    assert [bar(share, 2) for share in (0, 1e-9, 1 / 16, 0.5, 9 / 16, 1)] == ["", "▏", "▏", "█", "█▏", "██"]


def test_names_are_cut_in_the_middle():
    name = "encoder.layer.11.attention.self.query.weight"
    for width in range(2, 60):
        cut = shortened(name, width)
        assert len(cut) == min(width, len(name))
        if width < len(name):
            first, last = cut.split("…")
            assert name.startswith(first)
            assert name.endswith(last)
    assert [shortened("abc", width) for width in (0, 1, 2, 3)] == ["", "…", "…c", "abc"]


def test_markdown_has_as_many_cells_and_no_markup_of_names(found):
    text = markdown(tables_of(document(found)))
    assert "org/base\\|x" in text
    assert "b&lt;b&gt;.dpk" in text
    for block in text.split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_a_line_of_a_spreadsheet_is_a_diff_with_whole_numbers(found):
    told = document(found)
    lines = list(csv.DictReader(io.StringIO(spreadsheet(told))))
    assert [line["path"] for line in lines] == ["a.dpk", "b<b>.dpk", "w1.dpk", "w2.dpk", "z.dpk"]
    assert [int(line["bytes"]) for line in lines] == [Path(line["path"]).stat().st_size for line in lines]
    assert lines[4]["problem"]
    assert not any(line["problem"] for line in lines[:4])
    for line, row in zip(lines[:4], told.diffs, strict=True):
        assert int(line["changed"]) == row.changed
        assert float(line["weight_share"]) == row.weight_share
        assert line["exact"] == str(row.exact).lower()
        assert line["continues"] == (row.continues or "")


def test_lines_of_tensors_and_of_sums(found):
    told = document(found, tensors=True)
    lines = list(csv.DictReader(io.StringIO(spreadsheet(told))))
    assert len(lines) == sum(row.records for row in told.diffs)
    assert {line["shape"] for line in lines if line["name"] == "encoder.0.weight"} == {"48x32"}
    summed = list(csv.DictReader(io.StringIO(spreadsheet(document(found, by="dtype")))))
    of_tensors = sum(int(line["bytes"]) for line in lines)
    assert sum(int(line["bytes"]) for line in summed) == of_tensors


def test_what_is_printed_keeps_to_the_schema_in_the_docs(found):
    kept = json.loads((ROOT / "docs" / "stats.schema.json").read_text())
    assert kept == schema()
    for told in (document(found), document(found, tensors=True, by="module"), document(Stats(()))):
        jsonschema.validate(json.loads(json.dumps(plain(told))), kept)
    wrong = plain(document(found))
    wrong["diffs"][0]["bytes"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, kept)


def test_every_member_has_its_words():
    told = words(Document)
    assert all(told.values())
    assert set(words(DiffRow, "diffs[].")) < set(told)


def test_rows_are_plain_numbers_and_texts(found):
    for row in found.rows():
        assert all(
            value is None or isinstance(value, bool | int | float | str | list | tuple | dict) for value in row.values()
        )
        assert row["bytes"] == Path(row["path"]).stat().st_size

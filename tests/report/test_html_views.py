"""What is drawn is what was counted: density, overlap, histograms, the budget's line, histories."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from diffpack.diff.stats import DiffStats
from diffpack.report.budget import Budget
from diffpack.report.contents.histograms import DiffHistograms, Histogram
from diffpack.report.contents.overlap import TaskOverlap
from diffpack.report.families import families_of
from diffpack.report.html import bars, heat, matrix
from diffpack.report.html.budget_line import LENGTH, MOST_SEGMENTS, budget_line
from diffpack.report.html.labels import Labels
from diffpack.report.html.lineage import DEEPEST, lineage
from diffpack.report.html.page import page
from diffpack.report.html.rendering import brief_share
from diffpack.report.html.scale import LEVELS, Scale
from diffpack.report.parts import layer_of, module_of
from diffpack.report.stats import Stats
from tests.tools.pages import Page
from tests.tools.reports import counted, like_minilm, made_up_overlaps


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Stats:
    return counted(tmp_path_factory.mktemp("views") / "diffs", 3)


def test_cells_of_the_heat_map_add_up_to_all_tensors(found: Stats):
    diffs = [item.diff for item in found.families[0].members]
    drawn = heat.heat_map(diffs)
    assert drawn is not None
    cells = [cell for row in drawn.cells for cell in row if cell is not None]
    tensors = [tensor for item in diffs for tensor in item.tensors]
    assert sum(cell.changed for cell in cells) == sum(item.changed for item in tensors) > 0
    assert sum(cell.entries for cell in cells) == sum(item.entries for item in tensors)
    assert sum(cell.nbytes for cell in cells) == sum(item.nbytes for item in tensors)
    assert [cell.number for cell in cells] == list(range(len(cells)))


def test_cells_stand_in_their_module_and_layer(found: Stats):
    diffs = [item.diff for item in found.families[0].members]
    drawn = heat.heat_map(diffs)
    assert drawn is not None
    layers = [f"{group.name}.{number}" for group in drawn.layers for number in group.numbers or ("",)]
    at = layers.index("encoder.1")
    cell = drawn.cells[drawn.modules.index(module_of("encoder.1.weight"))][at]
    assert layer_of("encoder.1.weight") == "encoder.1"
    assert cell is not None
    assert cell.changed == sum(t.changed for item in diffs for t in item.tensors if t.name == "encoder.1.weight")


def test_a_single_task_has_its_own_numbers(found: Stats):
    diffs = [item.diff for item in found.families[0].members]
    drawn = heat.heat_map(diffs)
    assert drawn is not None
    assert drawn.each is not None
    for item, (shape, changed) in zip(diffs, drawn.each["tasks"], strict=True):
        assert sum(changed) == sum(tensor.changed for tensor in item.tensors)
        assert sum(drawn.each["entries"][shape]) == sum(tensor.entries for tensor in item.tensors)


def test_many_modules_and_layers_become_others():
    (one,) = like_minilm(1)
    tensors = tuple(
        dataclasses.replace(one.tensors[0], name=f"part.{layer}.module{layer}.weight", nbytes=layer + 1)
        for layer in range(heat.MOST_LAYERS + 5)
    )
    drawn = heat.heat_map([dataclasses.replace(one, tensors=tensors)])
    assert drawn is not None
    assert len(drawn.modules) == heat.MOST_MODULES
    assert sum(len(group.numbers) or 1 for group in drawn.layers) == heat.MOST_LAYERS
    assert drawn.modules[-1] == drawn.layers[-1].name == heat.OTHERS
    cells = [cell for row in drawn.cells for cell in row if cell is not None]
    assert sum(cell.nbytes for cell in cells) == sum(item.nbytes for item in tensors)


@pytest.mark.parametrize("numbers", [[0.5], [1e-9, 1.0], [0.004, 0.0041], [0.0, 0.2], []])
def test_the_largest_number_has_the_last_colour(numbers: list[float]):
    scale = Scale.of(numbers)
    assert scale.high >= 9.99 * scale.low
    assert scale.level(0.0) is None
    for number in numbers:
        level = scale.level(number)
        assert level is None if number == 0 else level is not None and 0 <= level < LEVELS
    if any(numbers):
        assert scale.level(max(numbers)) == LEVELS - 1


def test_every_pair_of_tasks_has_its_cell(found: Stats):
    overlap = made_up_overlaps(found)[0]
    drawn = matrix.matrix(overlap, 1000)
    for a, (name, changed, pairs) in enumerate(drawn.rows):
        assert (name, changed) == (overlap.names[a], overlap.both[a][a])
        for b, pair in enumerate(pairs):
            assert (pair is None) == (a == b)
            if pair is not None:
                assert pair.both == overlap.both[a][b]
                assert pair.jaccard == overlap.jaccard(a, b)
                assert pair.chance == round(overlap.both[a][a] * overlap.both[b][b] / 1000)


def test_branches_have_an_overlap_of_their_own(found: Stats):
    """They change the result of another diff, not the base."""
    (root,) = [item for item in found.diffs if item.name.endswith("root.dpk")]
    branches = tuple(item.name for item in found.diffs if "branch" in item.name)
    assert root.result_fingerprint is not None
    text = page(found, overlaps=[TaskOverlap(root.result_fingerprint, branches, ((9, 4), (4, 7)))])
    assert "Overlap between tasks that change root.dpk" in text
    assert 'title="4 in both, 0 by chance">33.3</td>' in text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0, "0"), (1e-6, "<.01"), (0.00005, "0.01"), (0.00123, "0.12"), (0.1, "10.0"), (0.9994, "99.9"), (1, "100")],
)
def test_shares_in_narrow_cells_have_four_characters(fraction: float, text: str):
    assert brief_share(fraction) == text


def test_of_many_tasks_the_nearest_are_told(found: Stats):
    count = matrix.MOST_TASKS + 1
    family = found.families[0]
    places = range(count)
    both = tuple(tuple(100 if a == b else 50 * (a // 2 == b // 2) for b in places) for a in places)
    overlap = TaskOverlap(family.base_fingerprint, tuple(f"t{at}.dpk" for at in range(count)), both)
    drawn = matrix.matrix(overlap, 1000)
    assert drawn.rows == ()
    assert [drawn.nearest[at][2].other for at in range(4)] == ["t1.dpk", "t0.dpk", "t3.dpk", "t2.dpk"]
    assert "shares most with" in page(found, overlaps=[overlap])


def test_histograms_of_tasks_add_up():
    some = [
        DiffHistograms("a", Histogram((1.0, 2.0, 4.0), (3, 1)), Histogram((0.5, 1.0), (4,))),
        DiffHistograms("b", Histogram((2.0, 4.0, 8.0), (5, 0)), None, "the base is needed"),
    ]
    drawn = bars.histograms(some)
    assert drawn is not None
    assert drawn.steps is not None
    assert [(bar.label, bar.count) for bar in drawn.steps.bars] == [("1", 3), ("2\N{EN DASH}3", 6)]
    assert drawn.steps.middle == "2\N{EN DASH}3"
    assert drawn.magnitudes is not None
    assert drawn.magnitudes.total == 4
    assert [item.why for item in drawn.each] == ["", "the base is needed"]
    highest = max(drawn.steps.bars, key=lambda bar: bar.count)
    assert float(highest.height) == bars.HEIGHT
    assert float(drawn.steps.bars[0].height) == bars.HEIGHT / 2


def test_what_is_in_no_bin_is_told(found: Stats):
    steps = Histogram((1.0, 2.0), (7,), not_finite=12_345, zero=54_321)
    changes = Histogram((2.0**1023, math.inf), (1,))
    text = page(found, histograms=[DiffHistograms(found.diffs[0].name, steps, changes)])
    assert "54,321 more are stored and do not move" in text
    assert "12,345 more are infinite or no numbers" in text
    assert "8.99e+307 to inf" in text


def test_an_empty_histogram_is_not_drawn():
    assert bars.bars([Histogram((1.0, 2.0), (0,))], bars.step_label) is None
    assert bars.histograms([]) is None


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_segments_lie_end_to_end(found: Stats, factor: float):
    used = found.base_bytes + found.nbytes
    line = budget_line(found, Budget.of(int(used * factor), found), Labels.of([]))
    for before, after in pairwise(line.segments):
        assert after.start == before.start + before.nbytes
    last = line.segments[-1]
    assert last.start + last.nbytes == used
    assert float(last.x) + float(last.width) == pytest.approx(LENGTH / max(1, factor), abs=0.01)
    assert float(line.mark) == pytest.approx(LENGTH * min(1, factor), abs=0.1)


def test_very_many_tasks_are_one_segment_of_their_base(found: Stats):
    many = Stats(found.diffs[:1] * (MOST_SEGMENTS + 1))
    line = budget_line(many, Budget.of("1GB", many), Labels.of([]))
    assert [item.is_base for item in line.segments] == [True, False]


def linked(one: DiffStats, arrows: list[tuple[str, str]]) -> list[DiffStats]:
    """Diffs from state to state."""
    return [dataclasses.replace(one, name=f"{a}{b}", base_fingerprint=a, result_fingerprint=b) for a, b in arrows]


def test_successors_stand_in_a_list_and_branches_in_lists_of_their_own():
    (one,) = like_minilm(1)
    (family,) = families_of(linked(one, [("a", "b"), ("b", "c"), ("b", "d"), ("d", "e"), ("c", "f")]))
    links, still_open = lineage(family.members)
    assert [(item.member.diff.name, item.closes, item.opens) for item in links] == [
        ("ab", 0, False),
        ("bc", 0, True),
        ("cf", 0, False),
        ("bd", 1, True),
        ("de", 0, False),
    ]
    assert still_open == 2
    assert all(item.continues is None for item in links)


def test_branches_of_branches_end_and_say_what_they_continue():
    (one,) = like_minilm(1)
    arrows = [arrow for at in range(12) for arrow in ((f"s{at:02d}", f"s{at + 1:02d}"), (f"s{at:02d}", f"x{at:02d}"))]
    (family,) = families_of(linked(one, [("base", "s00"), *arrows]))
    links, _ = lineage(family.members)
    depth = deepest = 1
    for item in links:
        depth += item.opens - item.closes
        deepest = max(deepest, depth)
    assert deepest == DEEPEST
    assert any(item.continues for item in links)
    Page(page(Stats(tuple(item.diff for item in family.members))))


def test_a_chain_of_a_thousand_is_flat():
    (one,) = like_minilm(1)
    diffs = linked(one, [(f"s{at:04d}", f"s{at + 1:04d}") for at in range(1000)])
    text = page(Stats(tuple(diffs)))
    assert "One model with a history: 1,000 versions" in text
    assert Page(text).all("ol")[0].text.count("latest") == 1
    assert len(Page(text).all("ol")) == 1


def test_names_lose_the_folder_they_share():
    assert Labels.of(["/a/b/x.dpk", "/a/b/c/y.dpk"]).short == {"/a/b/x.dpk": "x.dpk", "/a/b/c/y.dpk": "c/y.dpk"}
    assert Labels.of(["/a/bc/x", "/a/bd/x"]).folder == "/a/"
    assert Labels.of(["x.dpk", "diff in memory"]).folder == ""
    assert Labels.of([]).folder == ""
    assert Labels.of(["/a/x.dpk"])["elsewhere"] == "elsewhere"


def test_forty_tasks_of_minilm_are_a_small_page_made_at_once():
    found = Stats(tuple(like_minilm(40)))
    page(found)  # reads the templates
    begun = time.process_time()
    text = page(
        found,
        budget=Budget.of("512MB", found),
        overlaps=made_up_overlaps(found),
        histograms=[DiffHistograms(item.name, Histogram((1.0, 2.0, 4.0), (1, 2)), None) for item in found.diffs],
    )
    assert time.process_time() - begun < 1
    assert len(text.encode()) < 600_000
    assert len(re.findall(r"<option", text)) == 41


def test_a_thousand_tasks_stay_usable():
    found = Stats(tuple(like_minilm(1000)))
    text = page(found, budget=Budget.of("5GB", found))
    assert len(text.encode()) < 4_000_000
    assert "1,000 of 1,000" in text


def test_of_very_many_tasks_the_sums_alone_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(heat, "MOST_NUMBERS", 10)
    text = page(counted(tmp_path / "diffs", 1))
    assert "application/json" not in text
    assert "their sums are shown" in text

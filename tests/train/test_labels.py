"""What is a label: names and a few numbers are, measurements are not."""

from __future__ import annotations

import pytest

from diffpack.errors import UsageError
from diffpack.train.labels import label_names
from diffpack.train.texts import Examples


def examples(labels: list[str], source: str = "t.tsv") -> Examples:
    return Examples(source, tuple(f"text {at}" for at in range(len(labels))), (), tuple(labels), "")


@pytest.mark.parametrize(
    ("labels", "different"),
    [
        ([f"{at / 7:.4f}" for at in range(120)], 120),
        ([f"{at / 5}" for at in range(26)] * 40, 26),  # similarities from 0 to 5 in fifths
        (["0.13", "0.98", "-4e-2", "7"], 4),  # of few texts each its own
        ([str(at * 37) for at in range(120)], 120),  # prices
        ([f"{at}.0" for at in range(120)], 120),
    ],
)
def test_measurements_are_refused(labels, different):
    with pytest.raises(
        UsageError, match=rf"t\.tsv: its {len(labels)} texts have {different} different numbers .* regression"
    ):
        label_names(examples(labels), examples(labels[:2], "d.tsv"))


@pytest.mark.parametrize(
    "labels",
    [
        ["0", "1"],
        ["0.0", "1.0"],
        ["0.5", "1"],
        [str(at) for at in range(150)] * 3,  # a hundred and fifty intents by their numbers
        [f"{at / 2}" for at in range(2, 11)] * 3,  # stars with halves
        [str(at) for at in range(20)],  # a text of each
        [f"intent {at}" for at in range(120)],
        [*(f"{at / 7:.4f}" for at in range(40)), "none"],
        ["nan", "inf"],
    ],
)
def test_names_and_a_few_numbers_are_labels(labels):
    assert label_names(examples(labels), examples(labels[:2], "d.tsv")) == tuple(sorted(set(labels)))


def test_labels_that_only_dev_has_are_named_with_their_first_line():
    train, dev = examples(["a", "b"]), examples(["b", "d", "c", "d"], "d.tsv")
    with pytest.raises(UsageError, match=r"d\.tsv: labels that t\.tsv does not have: 'c' \(line 4\), 'd' \(line 3\)"):
        label_names(train, dev)


def test_labels_that_differ_only_in_spaces_are_one_by_mistake():
    with pytest.raises(UsageError, match="'good' and 'good ' differ only in spaces"):
        label_names(examples(["good", "bad", "good "]), examples(["good"]))
    assert label_names(examples([" good", "bad"]), examples(["bad"])) == (" good", "bad")

"""Composed diffs give the same bits as the chain they replace, or say that they need the base."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffpack
from diffpack.errors import BaseNeededError, UsageError, WrongBaseError
from diffpack.tensors.rename import compose_rename, renamed
from tests.tools.chains import RENAMES, chains, rename_arrays
from tests.tools.models import bits, model, tune, write_safetensors

LENIENT = [HealthCheck.too_slow, HealthCheck.data_too_large]


def links(states, **options):
    return [
        diffpack.extract(a, b, **{"rename": (), "allow_removed": True, **options})
        for a, b in itertools.pairwise(states)
    ]


def check(states, diffs, composed):
    """The composed diff says what the chain says, and gives its result."""
    assert composed.exact
    assert composed.manifest.base.fingerprint == diffs[0].manifest.base.fingerprint
    assert composed.manifest.result.fingerprint == diffs[-1].manifest.result.fingerprint
    assert bits(diffpack.load(states[0], composed)) == bits(states[-1])
    diffpack.verify(composed, states[0])


@settings(max_examples=250, deadline=None, suppress_health_check=LENIENT)
@given(chains(), st.sampled_from(["compact", "portable", "smallest"]))
def test_any_chain(states, profile):
    diffs = links(states, profile=profile)
    check(states, diffs, diffpack.compose(diffs, base=states[0]))
    try:
        composed = diffpack.compose(diffs)
    except BaseNeededError:
        return
    check(states, diffs, composed)


@settings(max_examples=150, deadline=None, suppress_health_check=LENIENT)
@given(chains(), st.lists(st.sampled_from([(), *RENAMES]), min_size=3, max_size=3))
def test_any_chain_with_renamed_tensors(states, rules):
    diffs = []
    renamed_so_far = [states[0]]
    for at, rule in enumerate(rules):
        tuned = states[at + 1]
        for earlier in rules[:at]:
            tuned = rename_arrays(tuned, earlier)
        moved = rename_arrays(tuned, rule)
        rule = rule if moved is not tuned and len(rename_arrays(renamed_so_far[-1], rule)) else ()
        try:
            diffs.append(diffpack.extract(renamed_so_far[-1], moved, rename=rule, allow_removed=True))
        except UsageError:  # two tensors would get one name
            diffs.append(diffpack.extract(renamed_so_far[-1], moved, rename=(), allow_removed=True))
        renamed_so_far.append(moved)
    check(renamed_so_far, diffs, diffpack.compose(diffs, base=renamed_so_far[0]))
    try:
        composed = diffpack.compose(diffs)
    except BaseNeededError:
        return
    check(renamed_so_far, diffs, composed)


@settings(max_examples=100, deadline=None)
@given(chains(links=4, kinds=("nothing", "change", "most", "back", "new")))
def test_changes_and_new_tensors_never_need_the_base(states):
    diffs = links(states)
    check(states, diffs, diffpack.compose(diffs))


prefixes = st.text("ab.", max_size=3)
rules = st.lists(st.tuples(prefixes, prefixes), max_size=3).map(tuple)


@settings(max_examples=500)
@given(rules, rules, st.text("ab.", max_size=6))
def test_composed_rename_rules_do_what_one_after_the_other_does(first, second, name):
    assert renamed(name, compose_rename(first, second)) == renamed(renamed(name, first), second)


def test_a_chain_of_a_hundred_small_updates():
    rng = np.random.default_rng(0)
    states = [{"w": rng.standard_normal(5000).astype(ml_dtypes.bfloat16), "b": np.zeros(50, np.float32)}]
    for _ in range(100):
        update = {name: array.copy() for name, array in states[-1].items()}
        where = rng.choice(5000, 50, replace=False)
        update["w"].view(np.uint16)[where] += rng.choice([1, 65535], 50).astype(np.uint16)
        update["b"][rng.integers(50)] += 1
        states.append(update)
    diffs = links(states)
    composed = diffpack.compose(diffs)
    check(states, diffs, composed)
    assert composed.nbytes < sum(diff.nbytes for diff in diffs) / 5
    halves = [diffpack.compose(diffs[:37]), diffpack.compose(diffs[37:])]
    assert diffpack.compose(halves).manifest == composed.manifest.__replace__(
        recipe=diffpack.compose(halves).manifest.recipe
    )


def test_steps_that_cancel_vanish():
    a, b = model(), tune(model(), 0.2)
    composed = diffpack.compose(links([a, b, a]))
    assert len(composed) == 0
    assert bits(diffpack.load(a, composed)) == bits(a)


def test_one_diff_composed_is_that_diff():
    diff = diffpack.extract(model(), tune(model(), 0.3))
    composed = diffpack.compose([diff])
    assert composed.manifest.groups == diff.manifest.groups
    assert composed.chunks == diff.chunks


@pytest.mark.parametrize("order", [(0, 2), (1, 0), (0, 1, 1), (2, 1, 0)])
def test_gaps_and_wrong_order_are_refused(order):
    states = [model(), tune(model(), 0.1, 1), tune(model(), 0.1, 2), tune(model(), 0.1, 3)]
    diffs = links(states)
    with pytest.raises(WrongBaseError, match="not made on the result") as caught:
        diffpack.compose([diffs[at] for at in order])
    assert caught.value.exit_code == 10


def test_lossy_diffs_and_nothing_are_refused():
    states = [model(), tune(model()), tune(model(), seed=5)]
    exact, lossy = diffpack.extract(*states[:2]), diffpack.extract(states[1], states[2], values="f16")
    with pytest.raises(UsageError, match="lossy"):
        diffpack.compose([exact, lossy])
    with pytest.raises(UsageError, match="no diff"):
        diffpack.compose([])


def test_another_base_is_refused():
    states = [model(), tune(model())]
    with pytest.raises(WrongBaseError, match="not the base"):
        diffpack.compose(links(states), base=states[1])


@pytest.mark.parametrize(
    ("middle", "last"),
    [
        ({"w": np.ones(4, np.float32)}, {"w": np.ones(4, ml_dtypes.bfloat16)}),  # changed, then rounded
        ({"w": np.zeros(2, np.float32)}, {"w": np.zeros(4, np.float32)}),  # cut, then grown
        ({"w": np.zeros(4, ml_dtypes.bfloat16)}, {"w": np.zeros(4, np.float32)}),  # rounded twice
    ],
)
def test_what_the_base_is_needed_for_is_said(middle, last):
    states = [{"w": np.zeros(4, np.float32)}, middle, last]
    diffs = links(states)
    with pytest.raises(BaseNeededError, match=r"^w: .*give the base"):
        diffpack.compose(diffs)
    check(states, diffs, diffpack.compose(diffs, base=states[0]))


def test_a_tensor_added_and_removed_again_that_the_base_may_have_had():
    base = {"w": np.zeros((3, 4), np.float32), "v": np.zeros(4, np.float32)}
    middle = {"w": np.zeros(5, np.uint8), "v": base["v"], "u": np.ones(3, np.float32)}
    states = [base, middle, {"v": base["v"]}]
    diffs = links(states)
    with pytest.raises(BaseNeededError, match="added and removed again"):
        diffpack.compose(diffs)
    check(states, diffs, diffpack.compose(diffs, base=base))


def test_files_come_back_byte_for_byte(tmp_path):
    arrays = [model(), tune(model(), 0.1, 1), tune(model(), 0.1, 2)]
    orders = [list(arrays[0]), list(reversed(arrays[0])), list(reversed(arrays[0]))]
    paths = [
        write_safetensors(tmp_path / f"{at}.safetensors", {name: state[name] for name in order}, {"format": "pt"})
        for at, (state, order) in enumerate(zip(arrays, orders, strict=True))
    ]
    diffs = [diffpack.extract(a, b) for a, b in itertools.pairwise(paths)]
    assert not diffs[1].manifest.layout.stored
    composed = diffpack.compose(diffs, tmp_path / "composed.dpk")
    diffpack.apply(paths[0], composed, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == paths[2].read_bytes()


def test_side_files_of_the_last_folder_come_back(tmp_path):
    contents = [{"config.json": "{}", "vocab.txt": "a"}, {"config.json": '{"n":1}', "vocab.txt": "a"}]
    contents.append(contents[1] | {"extra.json": "[]"})
    folders = []
    for at, files in enumerate(contents):
        folder = tmp_path / f"m{at}"
        folder.mkdir()
        write_safetensors(folder / "model.safetensors", tune(model(), 0.05 * at, at))
        for name, text in files.items():
            (folder / name).write_text(text)
        folders.append(folder)
    diffs = [diffpack.extract(a, b) for a, b in itertools.pairwise(folders)]
    composed = diffpack.compose(diffs)
    assert {item.name: item.stored for item in composed.manifest.files} == {
        "config.json": True, "extra.json": True, "vocab.txt": False,
    }  # fmt: skip
    diffpack.apply(folders[0], composed, tmp_path / "out")
    for path in folders[2].iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()

"""Rules call every tensor what it is to be called, and are as few as prefixes can be."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from diffpack.tensors.name_rules import rules_for
from diffpack.tensors.rename import Rename, Renamer, own_names, renamed

PARTS = st.sampled_from(["a", "b", "ab", "0", "1", "w"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
SLASHED = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@st.composite
def mappings(draw: st.DrawFn, most: int = 8) -> tuple[dict[str, str], set[str]]:
    """Names with the wanted ones, one for each, and further names."""
    names = draw(st.sets(NAMES | SLASHED, min_size=1, max_size=most))
    new = draw(st.lists(NAMES | SLASHED, min_size=len(names), max_size=len(names), unique=True))
    wanted = dict(zip(sorted(names), new, strict=True))
    for name in draw(st.sets(st.sampled_from(sorted(names)))):
        if name not in wanted.values():
            wanted[name] = name
    return wanted, draw(st.sets(NAMES | SLASHED, max_size=4)) - names


@settings(max_examples=500, deadline=None)
@given(mappings(), st.sets(NAMES, max_size=3))
def test_every_name_becomes_the_wanted_one_and_no_two_are_the_same(
    mapping: tuple[dict[str, str], set[str]], taken: set[str]
) -> None:
    wanted, free = mapping
    rules = rules_for(wanted, free, taken)
    view = own_names([*wanted, *free], rules)
    assert {own: name for name, own in view.items() if own in wanted} == wanted
    assert all(view.get(name, "") not in free for name in taken)
    assert rules_for(dict(reversed(wanted.items())), sorted(free, reverse=True), taken) == rules


@settings(max_examples=150, deadline=None)
@given(mappings(most=3))
def test_no_fewer_rules_do_it(mapping: tuple[dict[str, str], set[str]]) -> None:
    wanted, _ = mapping
    rules = rules_for(wanted)
    olds = {
        name[:end] for name in wanted for end in range(len(name) + 1) if end in (0, len(name)) or name[end - 1] in "./"
    }
    news = {new[:end] for new in wanted.values() for end in range(len(new) + 1)}
    candidates = sorted(product(olds, news))
    for count in range(min(len(rules), 2)):  # more would take too long to try
        for chosen in combinations(candidates, count):
            tried: Rename = tuple(sorted(chosen, key=lambda rule: -len(rule[0])))
            assert any(renamed(name, tried) != new for name, new in wanted.items())


RULES = st.lists(st.tuples(NAMES.map(lambda name: name[:3]) | st.just(""), NAMES), max_size=6)


@settings(max_examples=300, deadline=None)
@given(RULES, st.lists(NAMES, max_size=6))
def test_looking_rules_up_is_trying_them_one_by_one(rules: list[tuple[str, str]], names: list[str]) -> None:
    called = Renamer(rules)
    assert [called(name) for name in names] == [renamed(name, rules) for name in names]


def test_two_models_in_one_take_two_rules() -> None:
    names = [f"model.layers.{at}.w" for at in range(12)] + [f"visual.blocks.{at}.w" for at in range(4)]
    wanted = {
        name: name.replace("model.", "model.language_model.").replace("visual.", "model.visual.") for name in names
    }
    assert rules_for(wanted, ["lm_head"]) == (("visual.", "model.visual."), ("model.", "model.language_model."))


def test_what_is_gone_makes_room() -> None:
    """Every other layer is dropped: where one that is gone was, another one is."""
    wanted = {f"layers.{old}.{part}.w": f"layers.{new}.{part}.w" for new, old in enumerate((0, 2, 4)) for part in "qkv"}
    gone = [f"layers.{old}.{part}.w" for old in (1, 3, 5) for part in "qkv"]
    assert rules_for(wanted, gone) == (
        ("layers.1.", "removed.layers.1."), ("layers.2.", "layers.1."), ("layers.4.", "layers.2."),
    )  # fmt: skip


def test_a_name_that_another_one_begins_with_keeps_its_own_rule() -> None:
    wanted = {"a.weight": "a.w", "a.weight_scale": "a.weight_scale", "a.weight.bits": "a.weight.bits"}
    called = Renamer(rules_for(wanted))
    assert {name: called(name) for name in wanted} == wanted


def test_names_that_stay_take_no_rule() -> None:
    assert rules_for({"a.b": "a.b", "c": "c"}, ["d"]) == ()


def test_thousands_of_modules_are_done_in_no_time() -> None:
    names = [
        f"layers.{layer}.experts.{expert}.{part}.weight"
        for layer in range(24)
        for expert in range(64)
        for part in "abc"
    ]
    assert len(rules_for({name: name.replace(".experts.", ".mlp.experts.") for name in names})) == 24
    wrapped = rules_for({name: name.replace(".weight", ".base_layer.weight") for name in names})
    assert len(wrapped) == len(names)
    assert next(iter(own_names(names, wrapped))) == "layers.0.experts.0.a.base_layer.weight"

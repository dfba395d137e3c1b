"""The verbs in any order keep their laws: a machine makes diffs of diffs, and each leads where it should."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

import diffpack
from diffpack.errors import BaseNeededError, UsageError
from tests.tools.chains import DTYPES, NAMES, RENAMES, Arrays, filled, rename_arrays
from tests.tools.models import bits

SEEDS = st.integers(0, 2**32 - 1)
PROFILES = st.sampled_from(["compact", "portable", "smallest"])


@dataclass(frozen=True, eq=False)
class Link:
    """An exact diff, and the models it leads from and to."""

    before: Arrays
    after: Arrays
    diff: diffpack.Diff


def beginning(rng: np.random.Generator) -> Arrays:
    """A few small tensors."""
    names = rng.permutation(NAMES)[: rng.integers(1, len(NAMES) + 1)]
    return {
        str(name): filled(
            rng, DTYPES[rng.integers(len(DTYPES))], tuple(rng.integers(1, 5, rng.integers(1, 3)).tolist())
        )
        for name in names
    }


def changed(before: Arrays, rng: np.random.Generator) -> Arrays:
    """What training, pruning, growing or tying may make of a model."""
    after: Arrays = {}
    for name, array in before.items():
        match rng.integers(8):
            case 0 | 1 | 2:
                fresh = filled(rng, array.dtype, array.shape)
                after[name] = np.where(rng.random(array.shape) < rng.choice([0.1, 0.5, 1]), fresh, array)
            case 3:
                after[name] = filled(rng, DTYPES[rng.integers(len(DTYPES))], array.shape)
            case 4:
                grown = np.zeros((array.shape[0] + 1, *array.shape[1:]), array.dtype)
                grown[:-1] = array
                after[name] = grown
            case 5 if len(before) > 1:
                continue
            case _:
                after[name] = array
    if rng.random() < 0.3:
        after.setdefault("new", filled(rng, DTYPES[rng.integers(len(DTYPES))], (3,)))
    if rng.random() < 0.2 and after:
        after.setdefault("tied", next(iter(after.values())))
    return after or dict(before)


def extracted(before: Arrays, after: Arrays, profile: str) -> Link:
    return held(before, after, diffpack.extract(before, after, rename=(), allow_removed=True, profile=profile))


def held(before: Arrays, after: Arrays, diff: diffpack.Diff) -> Link:
    """A link that holds what every diff promises: the result bit for bit, and bytes that add up."""
    assert diff.exact
    assert bits(diffpack.load(before, diff)) == bits(after)
    diffpack.verify(diff, before)
    (one,) = diffpack.stats(diff).diffs
    of_records = one.factor_bytes + one.position_bytes + one.value_bytes
    assert one.nbytes == diff.nbytes
    assert one.nbytes == (one.manifest_bytes + of_records + one.layout_bytes + one.side_file_bytes + one.frame_bytes)
    assert sum(tensor.nbytes for tensor in one.tensors) == of_records
    return Link(before, after, diff)


class Laws(RuleBasedStateMachine):
    """Any error that is not expected where it stands fails the run, a `DiffpackError` too."""

    links: Any = Bundle("links")

    @initialize(target=links, seed=SEEDS, profile=PROFILES)
    def begin(self, seed: int, profile: str) -> Link:
        rng = np.random.default_rng(seed)
        before = beginning(rng)
        return extracted(before, changed(before, rng), profile)

    @rule(target=links, link=links, seed=SEEDS, profile=PROFILES)
    def extract(self, link: Link, seed: int, profile: str) -> Link:
        return extracted(link.before, changed(link.before, np.random.default_rng(seed)), profile)

    @rule(target=links, link=links, seed=SEEDS, profile=PROFILES)
    def compose(self, link: Link, seed: int, profile: str) -> Link:
        """Two in one lead where one after the other does; without the base, too, or they say that they need it."""
        after = changed(link.after, np.random.default_rng(seed))
        second = extracted(link.after, after, profile)
        with contextlib.suppress(BaseNeededError):
            held(link.before, after, diffpack.compose([link.diff, second.diff]))
        return held(link.before, after, diffpack.compose([link.diff, second.diff], base=link.before))

    @rule(target=links, link=links)
    def invert(self, link: Link) -> Link:
        """An undo leads back, and its undo there again."""
        undo = held(link.after, link.before, diffpack.invert(link.diff, base=link.before))
        held(link.before, link.after, diffpack.invert(undo.diff, base=link.after))
        return undo

    @rule(target=links, link=links, rules=st.sampled_from(RENAMES))
    def rename(self, link: Link, rules: tuple[tuple[str, str], ...]) -> Any:
        """Names change, values do not."""
        after = rename_arrays(link.after, rules)
        try:
            renamed = diffpack.rename(link.diff, rules, base=link.before).diff
        except UsageError:  # two tensors of one name
            assert after is link.after
            return multiple()
        return held(link.before, after, renamed)

    @rule(target=links, link=links)
    def rebase_onto_its_own_base(self, link: Link) -> Link:
        """All is carried over as it is."""
        done = diffpack.rebase(link.diff, link.before, base=link.before)
        assert not done.left_out
        return held(link.before, link.after, done.diff)

    @rule(link=links, seed=SEEDS)
    def merge(self, link: Link, seed: int) -> None:
        """What only one diff changes, and is no float, a merge takes over as it is; and it verifies."""
        merged = diffpack.merge([link.diff], base=link.before, clip=True)
        diffpack.verify(merged, link.before)
        found = diffpack.load(link.before, merged)
        assert found.keys() == link.after.keys()
        for name, array in link.after.items():
            if array.dtype.kind in "iu":
                assert bits({name: found[name]}) == bits({name: array})


TestLaws = Laws.TestCase
TestLaws.settings = settings(
    max_examples=40, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
)

"""Which entries are picked, against brute force."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffpack.train.selections import top
from diffpack.train.selections.datafree import at_random, by_weight
from diffpack.train.selections.gradients import by_gradient
from diffpack.train.selections.magnitude import by_change
from diffpack.train.selections.regrowth import Regrowth
from diffpack.train.selections.top import floors, top_k
from diffpack.train.tuners.sparse import SparseTuner


def chosen(positions: dict[str, torch.Tensor]) -> set[tuple[str, int]]:
    for where in positions.values():
        assert where.dtype == torch.int64
        assert (where[1:] > where[:-1]).all()
    return {(name, int(at)) for name, where in positions.items() for at in where}


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 30), st.floats(0, 1), st.randoms(),
    st.integers(1, 13),
)  # fmt: skip
def test_top_k_is_the_k_highest_above_a_floor(sizes, k, part, random, chunk):
    total = sum(sizes)
    k = min(k, total)
    values = list(range(total))
    random.shuffle(values)
    parts = torch.tensor(values, dtype=torch.float32).split(sizes)
    scores = {f"t{at}": part for at, part in enumerate(parts)}
    least = floors({name: value.numel() for name, value in scores.items()}, k, part)
    with patch.object(top, "CHUNK", chunk):
        found = chosen(top_k(scores, lambda name: scores[name], k, least))
    assert len(found) == k
    sure = {(name, int(at)) for name in scores for at in scores[name].topk(least[name]).indices}
    rest = sorted(
        ((float(value), (name, at)) for name in scores for at, value in enumerate(scores[name])), reverse=True
    )
    open_places = [place for _, place in rest if place not in sure][: k - len(sure)]
    assert found == sure | set(open_places)


def test_scores_that_are_no_numbers_come_last():
    scores = {"a": torch.tensor([1.0, float("nan"), -5.0])}
    assert chosen(top_k(scores, lambda name: scores[name], 2)) == {("a", 0), ("a", 2)}


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Linear(5, 3, bias=False)

    def forward(self, inputs: torch.Tensor):
        loss = self.second(self.drop(torch.relu(self.first(inputs)))).square().mean()
        return type("Output", (), {"loss": loss})()


@pytest.mark.parametrize("squared", [True, False], ids=["fisher", "gradient"])
def test_gradient_scores_are_those_of_whole_gradients(squared):
    model = Line().train()
    data = [{"inputs": torch.randn(4, 6, generator=torch.Generator().manual_seed(at))} for at in range(3)]
    names = ["first.weight", "second.weight"]
    model.first.bias.requires_grad_(False)
    found = chosen(by_gradient(model, names, data, 9, squared=squared))
    assert model.training
    assert not model.first.bias.requires_grad
    assert all(value.grad is None for value in model.parameters())
    model.eval()
    sums = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for batch in data:
        model.zero_grad()
        model(**batch).loss.backward()
        for name in names:
            gradient = dict(model.named_parameters())[name].grad
            sums[name] += gradient.square() if squared else gradient
    every = {(name, at): abs(float(value)) for name in names for at, value in enumerate(sums[name].view(-1))}
    assert found == set(sorted(every, key=every.__getitem__)[-9:])


def test_selections_without_data():
    model = Line()
    parameters = dict(model.named_parameters())
    for k in (1, 7, 50):
        first, again = at_random(parameters, k, 3), at_random(parameters, k, 3)
        assert len(chosen(first)) == k
        assert chosen(first) == chosen(again)
    assert chosen(at_random(parameters, 20, 3)) != chosen(at_random(parameters, 20, 4))
    sizes = {
        (name, at): abs(float(value))
        for name, tensor in parameters.items()
        for at, value in enumerate(tensor.detach().view(-1))
    }
    order = sorted(sizes, key=sizes.__getitem__)
    assert chosen(by_weight(parameters, 5, largest=True)) == set(order[-5:])
    assert chosen(by_weight(parameters, 5, largest=False)) == set(order[:5])


def test_change_is_picked_by_its_size():
    before = {"a": torch.zeros(4), "b": torch.zeros(3)}
    after = {"a": torch.tensor([0.0, -3.0, 0.1, 1.0]), "b": torch.tensor([0.2, 0.0, 2.0])}
    assert chosen(by_change(before, after, before, 3)) == {("a", 1), ("a", 3), ("b", 2)}


def test_regrowth_drops_the_least_changed_and_grows_by_gradient():
    model = Line()
    base = model.second.weight.detach().clone().view(-1)
    tuner = SparseTuner(model, {"second.weight": torch.tensor([0, 4, 8, 12])})
    slot = tuner.slots[0]
    optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=0.1))
    growth = Regrowth(slot)
    slot.watch = growth.propose
    growth.prepare(0.5)
    model.second.weight.sum().backward()
    gradient = torch.zeros(15)
    gradient[[2, 4, 14]] = torch.tensor([5.0, 9.0, 7.0])  # 4 is trained already
    model.second.weight.grad = gradient.view(3, 5).clone()
    slot.take_gradient(model.second.weight)
    optimiser.step()
    with torch.no_grad():
        slot.values.copy_(slot.base + torch.tensor([0.5, 0.001, 0.002, 0.5]))
    slot.scatter()
    assert growth.regrow(optimiser) == 2
    assert slot.positions.tolist() == [0, 2, 12, 14]
    flat = model.second.weight.detach().view(-1)
    assert torch.equal(flat[[4, 8]], base[[4, 8]])
    torch.testing.assert_close(slot.values.detach(), flat[slot.positions])
    assert torch.equal(slot.base, base[slot.positions])
    moments = optimiser.state[slot.values]["exp_avg_sq"]
    assert moments[1] == 0
    assert moments[3] == 0
    assert moments[0] != 0

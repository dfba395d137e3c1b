"""Weights loaded under an attached tuner: taken over bit by bit, or refused; never written over."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from diffpack.errors import UsageError
from diffpack.train import DiffPruner
from diffpack.train.tuners.sparse import SparseTuner
from tests.tools.tiny_net import LR, Net, batches, picked

DENSE = ["hidden.bias"]


def attached(model: nn.Module) -> tuple[SparseTuner, torch.optim.Optimizer]:
    positions = {name: where for name, where in picked(model).items() if name not in DENSE}
    tuner = SparseTuner(model, positions, dense=DENSE)
    return tuner, tuner.attach(torch.optim.SGD(tuner.parameters(), lr=LR))


def step(model: nn.Module, tuner: SparseTuner, optimiser: torch.optim.Optimizer, at: int = 0) -> None:
    model(batches()[at]).backward()
    tuner.clip(1.0)
    optimiser.step()
    optimiser.zero_grad()


def moved(model: nn.Module, by: float = 0.25) -> dict[str, torch.Tensor]:
    """A state of the module with other values at the trained positions alone, as an averaged model has."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, where in picked(model).items():
        state[name].view(-1)[where] += by
    return state


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in second)


def copy_in_place(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(state[name])


def copy_data(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """As many averaging tools swap weights: torch counts no write."""
    for name, value in model.named_parameters():
        value.data.copy_(state[name])


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, copy_in_place, copy_data])
def test_loaded_weights_stay_when_the_tuner_writes_and_are_trained_on(load):
    model = Net()
    tuner, optimiser = attached(model)
    step(model, tuner, optimiser)
    averaged = moved(model)
    load(model, averaged)
    parameters = tuner.parameters()
    tuner.write()
    assert equal(model.state_dict(), averaged)
    assert all(a is b for a, b in zip(parameters, tuner.parameters(), strict=True))
    assert (
        tuner.state_dict()["slots"]["out.weight"]["values"].tolist() == averaged["out.weight"].view(-1)[1::5].tolist()
    )
    fresh = Net()
    other, second = attached(fresh)
    fresh.load_state_dict(averaged)
    for trained, items in ((model, (tuner, optimiser)), (fresh, (other, second))):
        step(trained, *items, at=1)
    assert equal(model.state_dict(), fresh.state_dict())
    assert not torch.equal(model.out.weight, averaged["out.weight"])


def test_an_averaged_model_and_back_again_changes_nothing():
    """Swapped in to evaluate and to save it: in half precision the masters' bits are below what the module holds."""
    models = [Net().bfloat16(), Net().bfloat16()]
    for at, model in enumerate(models):
        tuner, optimiser = attached(model)
        for number in range(4):
            step(model, tuner, optimiser, at=number)
            own = copy.deepcopy(model.state_dict())
            if at:
                averaged = moved(model)
                model.load_state_dict(averaged)
                model(batches()[0])
                saved = tuner.state_dict()["slots"]["out.weight"]["values"]
                assert torch.equal(saved.bfloat16(), averaged["out.weight"].view(-1)[1::5])
                model.load_state_dict(own)
    assert equal(models[0].state_dict(), models[1].state_dict())


def test_of_half_precision_the_entries_that_were_loaded_are_taken_the_others_keep_their_masters():
    model = Net().bfloat16()
    tuner, optimiser = attached(model)
    step(model, tuner, optimiser)
    (slot,) = [slot for slot in tuner.slots if slot.name == "hidden.weight"]
    masters = slot.values.detach().clone()
    loaded = copy.deepcopy(model.state_dict())
    loaded["hidden.weight"].view(-1)[6] = 3.0  # the second of its positions
    model.load_state_dict(loaded)
    tuner.settle()
    assert slot.values[1] == 3.0
    assert torch.equal(slot.values[2:], masters[2:])
    assert not torch.equal(masters[2:], masters[2:].bfloat16().float())


def test_the_sign_of_zero_is_taken_over():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.zero_()
    tuner = SparseTuner(model, {"weight": torch.tensor([2])})
    with torch.no_grad():
        model.weight.neg_()
    with pytest.raises(UsageError, match="outside the tuner's positions"):
        tuner.write()
    assert model.weight.signbit().all()
    assert tuner.slots[0].values.signbit().all()


def other_base(model: nn.Module) -> None:
    state = moved(model)
    state["embed.weight"].view(-1)[0] += 1  # not a position
    model.load_state_dict(state)


def other_base_alone(model: nn.Module) -> None:
    """Outside the positions only; torch's count of writes tells."""
    state = copy.deepcopy(model.state_dict())
    state["embed.weight"].view(-1)[0] += 1
    model.load_state_dict(state)


def assigned(model: nn.Module) -> None:
    model.load_state_dict(moved(model), assign=True)


def dense_assigned(model: nn.Module) -> None:
    model.hidden.bias = nn.Parameter(model.hidden.bias.detach().clone())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_base, r"outside the tuner's positions since it was made: embed\.weight"),
        (other_base_alone, r"outside the tuner's positions since it was made: embed\.weight"),
        (assigned, "another parameter now"),
        (dense_assigned, "'hidden.bias' is another parameter now"),
        (nn.Module.bfloat16, "was torch.float32 on cpu when the tuner was made and is torch.bfloat16"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_at_the_next_step_and_the_next_write(change, message):
    for act in (lambda tuner, optimiser: optimiser.step(), lambda tuner, _: tuner.write()):
        model = Net()
        tuner, optimiser = attached(model)
        step(model, tuner, optimiser)
        change(model)
        for _ in range(2):  # and goes on being refused
            with pytest.raises(UsageError, match=message):
                act(tuner, optimiser)


def test_a_state_is_of_the_base_alone():
    """A write outside the positions that torch does not count is found when the tuner's state is to stand for it."""
    model = Net()
    tuner, _ = attached(model)
    model.hidden.weight.data.view(-1)[0] += 1
    with pytest.raises(UsageError, match="outside the tuner's positions"):
        tuner.state_dict()


def test_weights_loaded_between_a_step_and_its_write_are_not_written_over():
    model = Net()
    tuner = SparseTuner(model, {"out.weight": torch.arange(1, 160, 5)})
    optimiser = torch.optim.SGD(tuner.parameters(), lr=LR)  # not attached
    model(batches()[0]).backward()
    optimiser.step()
    loaded = {name: value.clone() for name, value in model.state_dict().items()}
    loaded["out.weight"].view(-1)[1] = 7.0
    model.load_state_dict(loaded)
    with pytest.raises(UsageError, match="between the optimiser's step and the tuner's write"):
        tuner.write()
    assert equal(model.state_dict(), loaded)


def test_a_state_brings_its_positions_to_a_tuner_that_picked_others():
    trained = Net()
    tuner, optimiser = attached(trained)
    step(trained, tuner, optimiser)
    state = tuner.state_dict()
    base = Net()
    for model in (Net(), copy.deepcopy(trained)):  # from the base, or with the checkpoint's weights loaded before
        elsewhere = {slot.name: slot.positions[::2] + 1 for slot in tuner.slots}
        other = SparseTuner(model, elsewhere, dense=DENSE)
        objects = other.parameters()
        other.load_state_dict(state)
        assert all(a is b for a, b in zip(objects, other.parameters(), strict=True))
        for slot, mine in zip(other.slots, tuner.slots, strict=True):
            assert torch.equal(slot.positions, mine.positions)
            assert torch.equal(slot.values, mine.values)
            assert torch.equal(slot.base, base.get_parameter(slot.name).detach().view(-1)[slot.positions])
            assert torch.equal(slot.parameter, mine.parameter)
        assert equal(other.state_dict()["slots"]["out.weight"], state["slots"]["out.weight"])


def test_a_state_matches_a_module_that_holds_its_values_or_its_base():
    """As a checkpoint's weights were loaded, or were not because it holds an adapter's alone."""
    trained = Net().bfloat16()
    tuner, optimiser = attached(trained)
    step(trained, tuner, optimiser)
    state = tuner.state_dict()
    model = Net().bfloat16()
    fresh, _ = attached(model)
    assert fresh.matches(state)
    model.load_state_dict(trained.state_dict())
    assert fresh.matches(state)
    with torch.no_grad():
        model.out.weight.view(-1)[1] += 1
    assert not fresh.matches(state)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("untouched"), "older version"),
        (lambda state: state["slots"].pop("out.weight"), "of other tensors"),
        (lambda state: state["slots"].update({"embed.weight": state["slots"].pop("embed.weight")}), "another order"),
        (lambda state: state["slots"]["out.weight"].update(values=torch.zeros(3)), "not as many values"),
        (
            lambda state: state["slots"]["out.weight"].update(positions=torch.full((32,), 999)),
            "sorted, unique and below",
        ),
        (lambda state: state["untouched"].update({"out.weight": "0"}), "another base: .*: out.weight"),
        (lambda state: state["untouched"].pop("out.weight"), "other parameters"),
    ],
)
def test_a_state_of_something_else_changes_nothing(spoil, message):
    model = Net()
    tuner, optimiser = attached(model)
    step(model, tuner, optimiser)
    state = tuner.state_dict()
    target = Net()
    other, _ = attached(target)
    spoil(state)
    with pytest.raises(UsageError, match=message):
        other.load_state_dict(state)
    other.settle()
    assert equal(target.state_dict(), Net().state_dict())


@pytest.mark.parametrize("load", [nn.Module.load_state_dict, copy_data])
def test_a_pruner_refuses_weights_that_its_next_sample_would_write_over(load):
    model = Net()
    pruner = DiffPruner(model, [name for name, _ in model.named_parameters()])
    pruner.sample()
    model(batches()[0]).backward()
    pruner.step()
    pruner.sample()
    loaded = {name: value + 1 for name, value in model.state_dict().items()}
    load(model, loaded)
    for draw in (pruner.sample, pruner.settle):
        with pytest.raises(UsageError, match="written by something else since the last sample"):
            draw()
    assert equal(model.state_dict(), loaded)
    pruner.load_state_dict(pruner.state_dict())
    pruner.sample()  # asked for: diff and gates count
    with pytest.raises(UsageError, match="relative to another base"):
        DiffPruner(model, list(pruner.gated)).load_state_dict(pruner.state_dict())

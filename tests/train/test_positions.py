"""Positions go into the tuner as people have them: tensors, arrays, lists, diffs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import diffpack
from diffpack.errors import UsageError
from diffpack.train.tuners.sparse import SparseTuner
from tests.tools.tiny_net import Net, batches

AT = [1, 4, 7]
BIG_ENDIAN = np.array(AT, ">i4")
READ_ONLY = np.array(AT)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "where",
    [
        AT, tuple(AT), range(1, 8, 3), torch.tensor(AT), torch.tensor(AT, dtype=torch.int32), np.array(AT, np.uint8),
        torch.tensor(AT, dtype=torch.uint16), np.array(AT), np.array(AT, np.int32), np.array(AT, np.uint64), BIG_ENDIAN,
        READ_ONLY, np.arange(10)[1:8:3], [np.int64(at) for at in AT],
    ],
)  # fmt: skip
def test_whole_numbers_of_any_kind_are_positions(where):
    tuner = SparseTuner(Net(), {"hidden.bias": where})
    assert tuner.slots[0].positions.dtype == torch.int64
    assert tuner.slots[0].positions.tolist() == AT
    tuner.close()


@pytest.mark.parametrize("where", [[], (), np.empty(0, np.int64), torch.empty(0, dtype=torch.int64)])
def test_no_positions_are_positions(where):
    assert SparseTuner(Net(), {"hidden.bias": where}).trained == 0


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (torch.tensor([1.0]), "'hidden.bias': positions are whole numbers.*not a tensor of torch.float32"),
        (np.array([1.5]), "not an array of float64"),
        ([0.5], "not a list of float64"),
        (torch.ones(8, dtype=torch.bool), "of a mask they are"),
        (np.ones(8, bool), "of a mask they are"),
        ([True, False], "of a mask they are"),
        (np.empty(0), "not an array of float64"),
        ("12", "not a str"),
        (3, "not a int"),
        ({1, 2}, "not a set"),
        ({"a": 1}, "not a dict"),
        ([[1], [2, 3]], "not a list of lists"),
        (["a"], "not a list of <U1"),
        ([None], "not a list of object"),
        (np.array([2**63], np.uint64), "below 2\\^63"),
        ([3, 1], "sorted"), ([1, 1], "unique"), ([8], "below 8"), ([-1, 2], "1-D"), ([[1, 2]], "1-D"),
    ],
)  # fmt: skip
def test_what_are_none_is_refused_by_name(where, message):
    with pytest.raises(UsageError, match=message) as caught:
        SparseTuner(Net(), {"hidden.bias": where})
    assert "hidden.bias" in str(caught.value)


def trained() -> tuple[Net, dict[str, np.ndarray]]:
    """A net, and its weights with some entries moved."""
    net = Net()
    moved = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    moved["embed.weight"].reshape(-1)[[3, 5, 8]] += 1
    moved["hidden.bias"] += 1
    return net, moved


def test_a_diff_says_what_to_train():
    net, moved = trained()
    diff = diffpack.extract(net, moved)
    tuner = SparseTuner(net, diff)
    whole = None if diff["hidden.bias"].position_coding.every_word else [*range(8)]
    found = {slot.name: None if slot.positions is None else slot.positions.tolist() for slot in tuner.slots}
    assert found == {"embed.weight": [3, 5, 8], "hidden.bias": whole}
    net(batches()[0]).backward()
    tuner.close()
    one = SparseTuner(net, {"embed.weight": diff["embed.weight"]})
    assert one.trained == 3
    one.close()
    assert SparseTuner(net, {"embed.weight": diff["embed.weight"].positions}).trained == 3


def test_a_diff_finds_its_tensors_under_the_models_names():
    net, moved = trained()
    diff = diffpack.extract(net, moved)
    wrapped = nn.ModuleDict({"net": net})
    assert [slot.name for slot in SparseTuner(wrapped, diff).slots] == ["net.embed.weight", "net.hidden.bias"]


def test_a_tensor_of_a_diff_that_the_model_lacks_is_named():
    net, moved = trained()
    diff = diffpack.extract(net, moved | {"head.weight": np.ones((3, 3), np.float32)})
    with pytest.raises(UsageError, match=r"no parameter 'head\.weight'"):
        SparseTuner(net, diff)

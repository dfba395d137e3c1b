"""A torch module as a checkpoint: what its state dict holds, shared; what has no values here is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import diffpack
from diffpack.errors import UnsupportedCheckpointError, UsageError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402 - needs torch

from tests.tools.tiny_net import Net  # noqa: E402 - needs torch


def test_a_module_is_its_state_dict_and_shares_its_memory():
    net = Net(tied=True)
    opened = diffpack.open_checkpoint(net)
    assert list(opened.tensors) == list(net.state_dict())
    assert opened.source == "the Net in memory"
    assert opened.ties == {"out.weight": "embed.weight"}
    with torch.no_grad():
        net.hidden.bias[0] = 5
    assert opened.words("hidden.bias").view(np.float32)[0] == 5


def test_strides_and_dtypes_do_not_matter():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
            self.register_buffer("steps", torch.tensor(3))
            self.register_buffer("scratch", torch.zeros(4), persistent=False)

    opened = diffpack.open_checkpoint(Odd().bfloat16())
    assert {name: str(info) for name, info in opened.tensors.items()} == {"w": "BF16[3, 2]", "steps": "I64[]"}
    assert diffpack.fingerprint(Odd()) == diffpack.fingerprint(
        {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "steps": np.array(3)}
    )


def test_extra_state_is_left_out_and_said():
    class Stateful(Net):
        def get_extra_state(self) -> Any:
            return {"calls": 3}

        def set_extra_state(self, state: Any) -> None:
            pass

    opened = diffpack.open_checkpoint(Stateful())
    assert opened.left_out == ["_extra_state"]
    assert list(opened.tensors) == [name for name in Stateful().state_dict() if name != "_extra_state"]


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(2, 2)


class ShardedTensor:
    """What torch's class of that name is like, as far as is looked at; making one takes several processes."""

    dtype, is_meta = torch.float32, False

    def data_ptr(self) -> int:
        return 0


def distributed() -> dict[str, Any]:
    return {"weight": ShardedTensor()}


def quantised() -> nn.Module:
    net = nn.Linear(2, 2)
    net.register_buffer("packed", torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8))
    return net


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (on_meta, "the Linear in memory: 'weight': on the meta device.*from_pretrained without device_map"),
        (distributed, "'weight': a ShardedTensor.*get_model_state_dict"),
        (lambda: nn.LazyLinear(2), "'weight': not initialised.*run the module once"),
        (quantised, "'packed': qint8 tensors"),
        (lambda: {"model": Net()}, "'model' is a Net, which is no array of numbers: a checkpoint in memory is"),
        (lambda: {"a": Net().state_dict()}, "'a' is a OrderedDict, which is no array"),
        (lambda: {"a": None}, "'a' is a NoneType"),
    ],
)
def test_what_has_no_plain_values_here_is_refused_by_name(make, message):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        diffpack.fingerprint(make())


def test_tensors_in_shards_of_processes_are_refused_by_name():
    from torch.distributed import HashStore, destroy_process_group, init_process_group
    from torch.distributed.tensor import distribute_module, init_device_mesh

    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        module = distribute_module(nn.Linear(2, 2), init_device_mesh("cpu", (1,)))
        with pytest.raises(UnsupportedCheckpointError, match=r"'weight': a DTensor.*get_model_state_dict"):
            diffpack.fingerprint(module)
    finally:
        destroy_process_group()


@pytest.mark.parametrize("wrong", [None, 3, ["a.safetensors"], Net, torch.ones(2)])
def test_what_is_no_checkpoint_is_said_to_be_none(wrong):
    with pytest.raises(UsageError, match="a checkpoint is a path, a torch module, its state_dict"):
        diffpack.open_checkpoint(wrong)

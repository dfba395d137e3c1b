"""SparseTuner: what it trains is what a masked dense optimiser would train, in every setting it promises."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

from diffpack.errors import UsageError
from diffpack.train.tuners.sparse import SparseTuner
from diffpack.train.tuners.trainer_callback import trainer_callback
from tests.tools import ROOT
from tests.tools.tiny_net import LR, Net, NetWithLoss, batches, picked


def masked_reference(model: nn.Module, positions: dict[str, torch.Tensor], groups: list[Any], clip: float) -> nn.Module:
    """Train the whole model densely, with every other gradient set to zero."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    for group in groups:
        for batch in group:
            model(batch).backward()
        for name, value in model.named_parameters():
            mask = torch.zeros(value.numel())
            mask[positions[name]] = 1
            value.grad *= mask.view_as(value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        optimiser.zero_grad()
    return model


def sparse_run(model: nn.Module, positions: dict[str, torch.Tensor], groups: list[Any], clip: float) -> SparseTuner:
    tuner = SparseTuner(model, positions)
    optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=LR, weight_decay=0.0))
    for group in groups:
        for batch in group:
            model(batch).backward()
        tuner.clip(clip)
        optimiser.step()
    return tuner


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_trains_like_a_masked_dense_optimiser(tied, accumulate):
    base, data = Net(tied), batches()
    groups = [data[at : at + accumulate] for at in range(0, len(data), accumulate)]
    positions = picked(base)
    expected = masked_reference(copy.deepcopy(base), positions, groups, clip=0.05)
    model = copy.deepcopy(base)
    sparse_run(model, positions, groups, clip=0.05).close()
    for (name, got), want, before in zip(
        model.named_parameters(), expected.parameters(), base.parameters(), strict=True
    ):
        torch.testing.assert_close(got, want)
        changed = (got != before).view(-1).nonzero().view(-1)
        assert set(changed.tolist()) <= set(positions[name].tolist())
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    assert model.state_dict().keys() == base.state_dict().keys()
    assert (model.out.weight is model.embed.weight) == tied


def test_no_gradient_is_kept_beside_the_compact_ones():
    model = Net()
    tuner = SparseTuner(model, {"embed.weight": torch.tensor([3, 9])}, dense=["hidden.bias"])
    model(batches()[0]).backward()
    assert model.embed.weight.grad is None
    assert model.out.weight.grad is None
    assert model.hidden.bias.grad is not None
    assert [value.grad.numel() for value in tuner.parameters()] == [2, 8]


def test_close_gives_the_module_back():
    model = Net()
    model.hidden.bias.requires_grad_(False)
    with SparseTuner(model, {"embed.weight": torch.tensor([3])}):
        assert not model.out.weight.requires_grad
        assert model.embed.sparse
    assert not model.embed.sparse
    assert model.out.weight.requires_grad
    assert not model.hidden.bias.requires_grad
    model(batches()[0]).backward()
    assert model.embed.weight.grad is not None


def test_bf16_weights_have_float32_masters():
    """Steps far below a bf16 ulp add up in the master, and the module holds its rounding."""
    model = Net().to(torch.bfloat16)
    before = model.hidden.weight.detach().clone()
    tuner = SparseTuner(model, {"hidden.weight": torch.arange(64)}, dense=["hidden.bias"])
    assert {value.dtype for value in tuner.parameters()} == {torch.float32}
    optimiser = tuner.attach(torch.optim.SGD(tuner.parameters(), lr=1e-6))
    for _ in range(3):
        for value in tuner.parameters():
            value.grad = torch.ones_like(value)
        optimiser.step()
    master = tuner.slots[0].values.detach()
    torch.testing.assert_close(master, before.float().view(-1) - 3e-6, rtol=0, atol=1e-7)
    assert torch.equal(model.hidden.weight.detach().view(-1), master.to(torch.bfloat16))
    model(batches()[0]).backward()
    assert tuner.slots[0].values.grad.dtype == torch.float32


def test_a_state_goes_on_where_it_was():
    data = [[batch] for batch in batches()]
    whole = Net()
    sparse_run(whole, picked(whole), data, clip=1.0)
    first, second = Net(), Net()
    half = SparseTuner(first, picked(first))
    optimiser = half.attach(torch.optim.AdamW(half.parameters(), lr=LR, weight_decay=0.0))
    for batch in batches()[:2]:
        first(batch).backward()
        half.clip(1.0)
        optimiser.step()
    rest = SparseTuner(second, picked(second))
    rest.load_state_dict(half.state_dict())
    again = rest.attach(torch.optim.AdamW(rest.parameters(), lr=LR, weight_decay=0.0))
    again.load_state_dict(optimiser.state_dict())
    for batch in batches()[2:]:
        second(batch).backward()
        rest.clip(1.0)
        again.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("positions", "dense", "message"),
    [
        ({"nowhere": None}, [], "no parameter"),
        ({"embed.weight": torch.tensor([2, 2])}, [], "sorted, unique"),
        ({"embed.weight": torch.tensor([160])}, [], "below 160"),
        ({"embed.weight": torch.tensor([-1])}, [], "below 160"),
        ({"embed.weight": None}, ["out.weight"], "tied"),
    ],
)
def test_wrong_positions_are_refused(positions, dense, message):
    with pytest.raises(UsageError, match=message):
        SparseTuner(Net(tied=True), positions, dense)


@pytest.mark.parametrize("dense", [[], ["hidden.bias"]], ids=["all tuned", "dense bias"])
def test_transformers_trainer(dense, tmp_path):
    """The Trainer, with accumulation and clipping of all gradients together, gives what the plain loop gives."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    data = torch.cat(batches())
    positions = {name: where for name, where in picked(Net()).items() if name not in dense}
    plain = Net()
    # the Trainer divides each micro-batch's loss by how many there are
    tuner = SparseTuner(plain, positions, dense)
    optimiser = tuner.attach(torch.optim.SGD(tuner.parameters(), lr=1.0))
    for start in range(0, 12, 4):
        for half in (data[start : start + 2], data[start + 2 : start + 4]):
            (plain(half) / 2).backward()
        norm = tuner.clip(0.001)
        optimiser.step()
        optimiser.zero_grad()
    model = NetWithLoss()
    tuner = SparseTuner(model, positions, dense)
    optimiser = tuner.attach(torch.optim.SGD(tuner.parameters(), lr=1.0))
    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1,
        max_grad_norm=0.001, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, train_sampling_strategy="sequential", logging_strategy="no",
    )  # fmt: skip
    constant = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
    trainer = transformers.Trainer(
        model, arguments, train_dataset=[{"tokens": row} for row in data], optimizers=(optimiser, constant),
        data_collator=lambda rows: {"tokens": torch.stack([row["tokens"] for row in rows])},
        callbacks=[trainer_callback(tuner)],
    )  # fmt: skip
    trainer.train()
    assert arguments.max_grad_norm == 0.001
    assert norm > 0.01
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, want)
    assert not torch.equal(model.hidden.weight, Net().hidden.weight)


def test_the_page_s_example_runs():
    page = (ROOT / "docs" / "train.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "SparseTuner(" in block]
    found: dict[str, Any] = {}
    exec(example, found)  # noqa: S102 - our own page
    torch.manual_seed(0)
    assert not found["tuner"]._handles
    moved = found["tuner"].slots[0]
    assert moved.positions.tolist() == [1, 5, 30]

"""Diff pruning's gradients against autograd's on the objective as the paper writes it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from diffpack.train.tuners.diff_pruning import PENALTY_TIMES_POOL, DiffPruner, PruningSettings
from diffpack.train.tuners.hard_concrete import LEFT, NOISE_EDGE, RIGHT, open_probability, sample, slope


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))


def gate(alpha: torch.Tensor) -> torch.Tensor:
    """The gate as the paper writes it."""
    noise = torch.rand_like(alpha).clamp(NOISE_EDGE, 1 - NOISE_EDGE)
    soft = torch.sigmoid(torch.log(noise) - torch.log(1 - noise) + alpha)
    return (soft * (RIGHT - LEFT) + LEFT).clamp(0, 1)


def test_gates_and_their_slope():
    alpha = torch.linspace(-4, 4, 400, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    expected = gate(alpha)
    (expected_slope,) = torch.autograd.grad(expected.sum(), alpha)
    torch.manual_seed(3)
    found = sample(alpha.detach())
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(slope(found), expected_slope)
    assert {0.0, 1.0} < set(found.tolist())


def test_a_gate_is_open_as_often_as_its_probability_says():
    torch.manual_seed(0)
    for value in (-1.0, 0.0, 1.5):
        alpha = torch.full((100_000,), value)
        share = (sample(alpha) > 0).float().mean()
        assert abs(float(share - open_probability(alpha)[0])) < 0.01


@pytest.mark.parametrize("structured_sum", [False, True], ids=["product", "sum"])
@pytest.mark.parametrize("structured", [False, True], ids=["entries", "groups"])
def test_gradients_are_those_of_the_published_objective(structured, structured_sum):
    net, inputs, penalty = model(), torch.randn(6, 5), 0.01
    names = [name for name, _ in net.named_parameters()]
    settings = PruningSettings(penalty=penalty, alpha_init=0.5, structured_sum=structured_sum)
    tuned = copy.deepcopy(net)
    pruner = DiffPruner(tuned, names, settings, structured=structured)
    for item in pruner.gated.values():  # a diff of 0 would hide the gates' gradients
        item.diff.detach().normal_()
        item.alpha.detach().add_(torch.randn_like(item.alpha))
    torch.manual_seed(5)
    pruner.sample()
    leaves = {
        name: [item.diff.detach().clone().requires_grad_(), item.alpha.detach().clone().requires_grad_()]
        + ([item.group.detach().clone().requires_grad_()] if item.group is not None else [])
        for name, item in pruner.gated.items()
    }
    torch.manual_seed(5)
    theta, norm = {}, torch.zeros(())
    for name, value in net.named_parameters():
        diff, alpha, *group = leaves[name]
        of_group = gate(group[0]) if group else 1.0
        z, chance = gate(alpha) * of_group, torch.sigmoid(alpha)
        if group:
            by_group = torch.sigmoid(group[0])
            chance = chance + by_group if structured_sum else chance * by_group
        theta[name] = value.detach() + z * diff
        norm = norm + chance.sum()
    loss = functional_call(net, theta, inputs).square().sum() + penalty * norm
    flat = [leaf for part in leaves.values() for leaf in part]
    expected = torch.autograd.grad(loss, flat)

    tuned(inputs).square().sum().backward()
    pruner.add_penalty()
    found = []
    for item in pruner.gated.values():
        found += [item.diff.grad, item.alpha.grad] + ([item.group.grad] if item.group is not None else [])
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want)
    assert all(value.grad is None for value in tuned.parameters())


def test_the_penalty_closes_gates_and_the_loss_keeps_what_it_needs():
    """One weight explains the data: its gate stays open while the others close."""
    torch.manual_seed(0)
    net = nn.Linear(20, 1, bias=False)
    inputs = torch.randn(256, 20)
    truth = net(inputs).detach() + 2 * inputs[:, :1]
    pruner = DiffPruner(net, ["weight"], PruningSettings(penalty=0.02, lr=0.05, alpha_init=1.0))
    for _ in range(150):
        pruner.sample()
        (net(inputs) - truth).square().mean().backward()
        pruner.step()
    chance = open_probability(pruner.gated["weight"].alpha.detach()).view(-1)
    assert chance[0] > 0.95
    assert chance[1:].mean() < 0.2
    assert pruner.expected_open() < 4
    pruner.settle()
    net(inputs).mean().backward()
    assert net.weight.grad is not None


def test_published_defaults():
    settings = PruningSettings()
    assert (settings.alpha_init, settings.gate_lr, settings.lr, settings.fixed_lr) == (5.0, 0.1, 1e-5, 5e-5)
    assert (LEFT, RIGHT, NOISE_EDGE) == (-1.5, 1.5, 1e-4)
    entries = 335_000_000
    assert PENALTY_TIMES_POOL / entries == pytest.approx(1.25e-7, rel=0.01)

"""Tasks in any torch module: a model in memory, changes as training leaves them, switched in place.

::

    pip install 'diffpack[torch]'
    python examples/plain_torch.py

    task1: 7,898 bytes beside the model's 1,185,796, version 71b07c91...
    task2: 7,942 bytes beside the model's 1,185,796, version 5c457489...
    task3: 7,772 bytes beside the model's 1,185,796, version 6947a456...
    task2 answers [-0.003, 0.079, 0.131, 0.001], as its fine-tune does
    task1 answers [-0.037, 0.027, 0.024, -0.007], as its fine-tune does
    task3 answers [-0.063, -0.056, 0.143, -0.07], as its fine-tune does
    task2 answers [-0.003, 0.079, 0.131, 0.001], as its fine-tune does
    the base is back, every bit, where it was

No files and no transformers: diffs are made of tensors in memory, and live there.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

import diffpack
from diffpack.live import TaskSwitcher

DENSITY = 0.005
"""Of the weights, as sparse training leaves them; the others stay what they were, bit for bit."""


def tune(base: nn.Module, seed: int) -> nn.Module:
    """Train the base to predict sums of other inputs for each seed, at a few of its weights."""
    generator = torch.Generator().manual_seed(seed)
    tuned = copy.deepcopy(base)
    masks = [torch.rand(value.shape, generator=generator) < DENSITY for value in tuned.parameters()]
    optimiser = torch.optim.Adam(tuned.parameters(), lr=0.01)
    of_interest = torch.rand(64, generator=generator) < 0.5
    for _ in range(20):
        x = torch.randn(32, 64, generator=generator)
        loss = (tuned(x)[:, 0] - x[:, of_interest].sum(1)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        for value, mask in zip(tuned.parameters(), masks, strict=True):
            assert value.grad is not None
            value.grad *= mask  # Adam leaves alone what never had a gradient
        optimiser.step()
    return tuned


def main() -> None:
    """Make a base and three tasks, switch between them, and have the base back."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 1)).eval()
    tuned = {f"task{seed}": tune(model, seed).eval() for seed in (1, 2, 3)}
    before = copy.deepcopy(model.state_dict())
    memory = {name: value.data_ptr() for name, value in model.named_parameters()}
    x = torch.randn(4, 64)

    switcher = TaskSwitcher(model)  # the module as it is now is the base
    whole = sum(value.nbytes for value in before.values())
    for name, other in tuned.items():
        diff = diffpack.extract(model, other)  # in memory; give it a path to make a file
        version = switcher.add(name, diff)
        print(f"{name}: {diff.nbytes:,} bytes beside the model's {whole:,}, version {str(version)[:8]}...")

    with torch.no_grad():
        for name in ("task2", "task1", "task3", "task2"):
            switcher.use(name)
            assert torch.equal(model(x), tuned[name](x))
            print(f"{name} answers {[round(y, 3) for y in model(x)[:, 0].tolist()]}, as its fine-tune does")
        with switcher.task("task1") as version:  # nobody switches inside
            assert torch.equal(model(x), tuned["task1"](x)), version
        assert switcher.current == "task2"

    switcher.use(None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.data_ptr() == memory[name] for name, value in model.named_parameters())
    print("the base is back, every bit, where it was")


if __name__ == "__main__":
    main()

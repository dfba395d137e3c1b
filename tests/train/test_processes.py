"""SparseTuner in two processes: they train what one would, agree on what was loaded, and end without a trace."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from diffpack.errors import UsageError
from diffpack.train.tuners.sparse import SparseTuner
from tests.tools.tiny_net import LR, Net, batches, picked

TASKS = Path("/proc/self/task")
"""Where Linux tells a process of its threads."""


def _one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        _train(rank, folder)
        gc.collect()  # what a wrapper holds of the group must be gone before the group is
        assert _gloo_threads() or not TASKS.exists()
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
    # one that ran on would meet the interpreter's end, and abort the process there
    assert not _gloo_threads()


def _gloo_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in TASKS.glob("*")]
    return [name for name in names if "gloo" in name]


def _train(rank: int, folder: str) -> None:
    """Run two steps under DDP on this rank's half of each batch; rank 1 asks for other positions, rank 0's count.

    Before the second a step is left out after clipping, as scaled losses make loops do. In the end rank 0 alone loads
    other weights, which both refuse.
    """
    model = Net()
    positions = {name: where for name, where in picked(model, 5 + rank).items() if name != "hidden.bias"}
    tuner = SparseTuner(model, positions, dense=["hidden.bias"])
    optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=LR, weight_decay=0.0))
    wrapped = nn.parallel.DistributedDataParallel(model)
    data = batches(8)
    for step in range(2):
        if step:
            wrapped(data[rank]).backward()
            tuner.clip(0.05)
            optimiser.zero_grad()
        with wrapped.no_sync():
            wrapped(data[4 * step + rank]).backward()
        wrapped(data[4 * step + 2 + rank]).backward()
        tuner.clip(0.05)
        optimiser.step()
        optimiser.zero_grad()
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    loaded = {name: value.clone() for name, value in model.state_dict().items()}
    for both in (True, False):
        loaded["out.weight"].view(-1)[positions["out.weight"] if rank == 0 else tuner.slots[-1].positions] += 1
        if both or rank == 0:
            model.load_state_dict(loaded)
        wrapped(data[rank]).backward()
        if both:
            tuner.clip(1.0)
            optimiser.step()
            optimiser.zero_grad()
        else:
            with pytest.raises(UsageError, match="1 of 2 processes have loaded other weights"):
                optimiser.step()


def test_two_processes_under_ddp():
    """Both ranks end equal, with what one process gets from the averaged gradients."""
    with tempfile.TemporaryDirectory() as folder:
        # fresh processes: a fork of one with threads (torch's, the test runner's) may inherit a lock for good
        processes = torch.multiprocessing.spawn(_one_process, (folder,), nprocs=2, join=False)
        try:
            assert any(processes.join(timeout=30) for _ in range(4)), "the two processes wait for each other"
        finally:
            for process in processes.processes:
                process.kill()
                process.join()
        ranks = [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    base = Net()
    positions = picked(base) | {"hidden.bias": torch.arange(8)}
    tuner = SparseTuner(base, positions)
    optimiser = tuner.attach(torch.optim.AdamW(tuner.parameters(), lr=LR, weight_decay=0.0))
    data = batches(8)
    for step in range(2):
        for batch in data[4 * step : 4 * step + 4]:
            (base(batch) / 2).backward()
        tuner.clip(0.05)
        optimiser.step()
    for name, want in base.state_dict().items():
        torch.testing.assert_close(ranks[0][name], want)

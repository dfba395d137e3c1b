"""A mixed batch is exact where it can be, leaves no trace, and belongs to one thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import diffpack  # noqa: E402
from diffpack.errors import UsageError  # noqa: E402
from diffpack.live import TaskSwitcher, row_by_row  # noqa: E402
from diffpack.live.mixed import changed as forms  # noqa: E402
from diffpack.live.mixed.matrix import LowRankMatrix, SparseMatrix  # noqa: E402
from tests.tools.live_tasks import Layered, bits, changed, layered, same, write  # noqa: E402
from tests.tools.mixed import NAMES, add, answers, apart, by_task, mixed, switcher_of, untouched  # noqa: E402

TOKENS = torch.randint(0, 40, (len(NAMES), 6), generator=torch.Generator().manual_seed(1))


def test_rows_are_answered_in_their_order_with_the_version_of_each(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path, "hidden.weight")
    answer = answers(model, TOKENS)
    expected = by_task(switcher, NAMES, answer)
    with switcher.mixed(NAMES) as versions:
        found = answer(range(len(NAMES)))
    assert apart(found, expected) < 1e-6
    for name, version in zip(NAMES, versions, strict=True):
        with switcher.task(name) as other:
            assert version == other


def test_words_looked_up_are_those_of_the_task_bit_for_bit(tmp_path: Path):
    model = nn.Sequential(nn.Embedding(40, 8, padding_idx=0))
    switcher = switcher_of(model, tmp_path, "0.weight")
    answer = answers(model, TOKENS)
    assert torch.equal(mixed(switcher, NAMES, answer), by_task(switcher, NAMES, answer))


def test_one_row_of_positions_is_looked_up_for_all(tmp_path: Path):
    table = nn.Embedding(6, 8)
    switcher = switcher_of(nn.Sequential(table), tmp_path)
    with switcher.mixed(["a", None, "b"]):
        found = table(torch.arange(6)[None])
    for row, name in enumerate(["a", None, "b"]):
        with switcher.task(name):
            assert torch.equal(found[row], table.weight)


def test_afterwards_the_resident_task_stands_there_again(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    switcher.use("b")
    before = bits(model.state_dict())
    mixed(switcher, ["a", "c", None], answers(model, TOKENS))
    assert switcher.current == "b"
    assert same(model.state_dict(), before)
    assert untouched(model)


def test_an_exception_in_the_block_leaves_no_trace(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    before = bits(model.state_dict())
    with pytest.raises(ZeroDivisionError), switcher.mixed(["a", "b"]):
        raise ZeroDivisionError(model(TOKENS[:2]).shape)
    assert same(model.state_dict(), before)
    assert untouched(model)
    assert torch.is_grad_enabled()
    with switcher.task("c"):
        pass


def test_a_forward_that_others_bound_to_the_module_is_there_again(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    bound = model.hidden.forward
    model.hidden.forward = bound  # type: ignore[method-assign]  # as libraries do that put a forward back
    mixed(switcher, ["a", "b"], answers(model, TOKENS))
    assert vars(model.hidden)["forward"] is bound


def test_a_task_added_again_is_the_new_one(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    answer = answers(model, TOKENS)
    old = mixed(switcher, ["a", "b"], answer)
    add(switcher, "a", tmp_path, changed(model.state_dict(), 77))
    new = mixed(switcher, ["a", "b"], answer)
    assert apart(new, by_task(switcher, ["a", "b"], answer)) < 1e-6
    assert not torch.equal(new[0], old[0])
    assert torch.equal(new[1], old[1])


def test_a_difference_that_is_not_finite_is_not_added(tmp_path: Path):
    model = layered()
    with torch.no_grad():
        model.hidden.weight[0, 0] = float("inf")
        model.back.weight[1, 1] = -3e38
    switcher = switcher_of(model, tmp_path)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["hidden.weight"][0, 0] = 0.5
    state["back.weight"][1, 1] = 3e38
    add(switcher, "finite", tmp_path, state)
    answer = answers(model.hidden, torch.randn(3, 4, 24))
    found = mixed(switcher, ["finite", None, "finite"], answer)
    assert bool(found[0].isfinite().all())
    assert not bool(found[1].isfinite().all())
    assert apart(found[::2], by_task(switcher, ["finite"] * 3, answer)[::2]) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_without_a_sparse_product_of_torch_entries_are_gathered(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forms, "SPARSE_UP_TO", 1.0)
    model = layered(dtype=dtype)
    switcher = switcher_of(model, tmp_path)
    answer = answers(model, TOKENS)
    expected = by_task(switcher, NAMES[:3], answer)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr("diffpack.live.mixed.matrix._GATHERED_ENTRIES", 300)
    assert apart(mixed(switcher, NAMES[:3], answer), expected) < (3e-2 if dtype == torch.bfloat16 else 1e-6)


def test_a_sparse_matrix_is_the_one_it_was_made_of():
    dense = torch.zeros(5, 7)
    index = torch.tensor([0, 6, 13, 20, 21, 34], dtype=torch.int32)
    dense.view(-1)[index.long()] = torch.arange(1.0, 7)
    x = torch.randn(4, 7)
    y = torch.zeros(4, 5)
    SparseMatrix.of(index, torch.arange(1.0, 7), dense.shape, inputs_first=False).add_product(y, x)
    assert torch.allclose(y, x @ dense.t())
    y = torch.zeros(4, 7)
    SparseMatrix.of(index, torch.arange(1.0, 7), dense.shape, inputs_first=True).add_product(y, x[:, :5])
    assert torch.allclose(y, x[:, :5] @ dense)


class Gated(nn.Module):
    """A module whose own parameter nothing is known about."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(8))
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        y: torch.Tensor = self.inner(x * self.gate) * scale
        return y, y.sum(-1)


class Declared(Gated):
    """The same, declared."""

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x, scale)


row_by_row(Declared)


def test_a_declared_class_runs_row_by_row(tmp_path: Path):
    model = nn.Sequential(Declared())
    switcher = switcher_of(model, tmp_path)
    x = torch.randn(len(NAMES), 3, 8)
    names = ["c", "a", None, "a", "b", None, "c"]
    with switcher.mixed(names):
        found = model[0](x, scale=2.0)
    for at in (0, 1):
        expected = by_task(switcher, names, lambda rows, at=at: model[0](x[list(rows)], scale=2.0)[at])
        assert torch.equal(found[at], expected) or apart(found[at], expected) < 1e-6


def test_a_class_that_is_not_declared_is_refused_by_name(tmp_path: Path):
    switcher = switcher_of(nn.Sequential(Gated()), tmp_path)
    with pytest.raises(UsageError, match=r"0 \(Gated\): nothing is known .*gate.*row_by_row"), switcher.mixed(["a"]):
        pass
    with pytest.raises(UsageError, match="takes a class"):
        row_by_row(nn.Linear(1, 1))  # type: ignore[arg-type]  # that is refused


def test_another_thread_is_refused_and_others_wait(tmp_path: Path):
    model: Layered = layered()
    switcher = switcher_of(model, tmp_path)
    raised: list[BaseException] = []
    done = threading.Event()

    def forward() -> None:
        try:
            with torch.no_grad():
                model(TOKENS[:2])
        except UsageError as error:
            raised.append(error)

    def use() -> None:
        with switcher.task("c"):
            done.set()

    with switcher.mixed(["a", "b"]):
        threads = [threading.Thread(target=forward), threading.Thread(target=use)]
        for thread in threads:
            thread.start()
        threads[0].join()
        assert not done.is_set()
    threads[1].join()
    assert done.is_set()
    assert "another thread" in str(raised[0])


def test_inference_mode_mixes_too(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    answer = answers(model, TOKENS)
    with torch.inference_mode():
        found = mixed(switcher, NAMES[:3], answer)
    assert apart(found, by_task(switcher, NAMES[:3], answer)) < 1e-6
    assert torch.equal(mixed(switcher, NAMES[:3], answer), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("grid", [False, True])
def test_factors_of_low_rank_are_multiplied_with_as_factors(
    dtype: torch.dtype, grid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    monkeypatch.setattr(forms, "SPARSE_UP_TO", 1.0)
    torch.manual_seed(0)
    model = Layered(width=96, dtype=dtype).eval()
    base = write(tmp_path / "base.safetensors", model.state_dict())
    switcher = TaskSwitcher(model, base)
    for seed, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(seed)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        for key in ("hidden.weight", "back.weight"):
            rows, columns = state[key].shape
            left, right = (torch.randn(shape, generator=generator) * 0.2 for shape in ((rows, 2), (2, columns)))
            peaks = (torch.rand(rows, columns, generator=generator) < 0.005) * torch.randn(
                rows, columns, generator=generator
            )
            state[key] += (left @ right + peaks).to(dtype)
        tuned = write(tmp_path / f"{name}.safetensors", state)
        options: dict[str, Any] = {"budget": 0.08 / dtype.itemsize} if grid else {"values": "lowrank", "rank": 3}
        diff = diffpack.extract(base, tuned, tmp_path / f"{name}.dpk", **options)
        assert diff["hidden.weight"].rank
        assert any(places.size for places, _ in diff["hidden.weight"].beside_factors()) == grid
        switcher.add(name, tmp_path / f"{name}.dpk")
    names = ["b", None, "a", "b"]
    answer = answers(model, TOKENS)
    used = []
    product = LowRankMatrix.add_product
    monkeypatch.setattr(LowRankMatrix, "add_product", lambda self, *args: (used.append(self), product(self, *args)))
    bound = {torch.float32: 1e-5, torch.float64: 1e-6, torch.bfloat16: 3e-2}[dtype]  # factors are float32
    assert apart(mixed(switcher, names, answer), by_task(switcher, names, answer)) < bound
    assert len(used) == 4  # two tasks, two matrices
    assert all((matrix.rest is not None) == ("budget" in options) for matrix in used)
    assert apart(by_task(switcher, [None] * 4, answer), by_task(switcher, names, answer)) > 2 * bound

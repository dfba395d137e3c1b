"""Switching is exact: a task's bits are those of its result, and the base comes back bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diffpack.errors import (  # noqa: E402
    CorruptFileError,
    ResultMismatchError,
    UsageError,
    WrongBaseError,
)
from diffpack.live import TaskSwitcher  # noqa: E402
from diffpack.live.words import TensorWords  # noqa: E402
from tests.tools.live_tasks import bits, layered, result_bits, same, tasks, write  # noqa: E402

CODINGS: dict[str, dict[str, Any]] = {
    "compact": {"profile": "compact"},
    "smallest": {"profile": "smallest"},
    "portable": {"profile": "portable"},
    "f32": {"values": "f32"},
    "f16": {"values": "f16"},
    "bf16": {"values": "bf16"},
    "int8": {"values": "int8"},
    "levels": {"positions": "levels"},
    "all": {"positions": "all"},
    "a rule": {"rule": "random 7", "density": 0.02},
    "largest": {"rule": "largest", "density": 0.02},
    "a budget": {"budget": "40%"},
    "factors": {"values": "lowrank", "rank": 3},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.safetensors", layered().state_dict())


@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_gives_the_bits_that_load_gives(coding: str, base: Path, tmp_path: Path):
    files = tasks(base, tmp_path, **CODINGS[coding])
    model = layered()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
    for at in (0, 1, 2, 1, 0):
        switcher.use(f"task{at}")
        assert same(model.state_dict(), result_bits(base, files[at]))
        assert not same(model.state_dict(), before)
    switcher.use(None)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_float_dtype_is_switched_by_its_bits(dtype: torch.dtype, tmp_path: Path):
    model = layered(dtype=dtype)
    base = write(tmp_path / "base.safetensors", model.state_dict())
    file = tasks(base, tmp_path, 1)[0]
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    switcher.add("task", file)
    switcher.use("task")
    assert same(model.state_dict(), result_bits(base, file))
    switcher.use(None)
    assert same(model.state_dict(), before)


def test_parameters_keep_their_identity_and_memory(base: Path, tmp_path: Path):
    model = layered()
    before = {name: (id(value), value.data_ptr()) for name, value in model.named_parameters()}
    with TaskSwitcher(model, base) as switcher:
        switcher.add("task", tasks(base, tmp_path, 1)[0])
        switcher.use("task")
        assert model.output.weight is model.table.weight
        assert {name: (id(value), value.data_ptr()) for name, value in model.named_parameters()} == before


def test_random_switches_end_where_they_began(base: Path, tmp_path: Path):
    files = tasks(base, tmp_path, 4, profile="smallest")
    model = layered()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base, decoded_bytes=20_000)
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
    expected = {f"task{at}": result_bits(base, file) for at, file in enumerate(files)}
    draw = random.Random(0)
    for _ in range(300):
        name = draw.choice([None, *expected])
        switcher.use(name)
        assert same(model.state_dict(), before if name is None else expected[name])
    switcher.use(None)
    assert same(model.state_dict(), before)
    assert switcher.usage().decoded_bytes <= 20_000


def test_without_files_the_module_as_it_is_is_the_base(base: Path, tmp_path: Path):
    model = layered()
    switcher = TaskSwitcher(model)
    file = tasks(base, tmp_path, 1)[0]
    switcher.add("task", file)
    switcher.use("task")
    assert same(model.state_dict(), result_bits(base, file))
    assert switcher.verify() == len(dict(model.named_parameters())) + 1


def test_a_module_of_other_values_is_not_the_base(base: Path, tmp_path: Path):
    with pytest.raises(WrongBaseError, match=r"hidden\.weight holds other values"):
        TaskSwitcher(layered(1), base)
    other = write(tmp_path / "other.safetensors", layered(1).state_dict())
    with pytest.raises(WrongBaseError, match="not the base"):
        TaskSwitcher(layered(), base).add("task", tasks(other, tmp_path, 1)[0])
    with pytest.raises(WrongBaseError, match="these tensors differ"):
        TaskSwitcher(layered()).add("task", tmp_path / "task1.dpk")
    with pytest.raises(WrongBaseError, match="none of its tensors is there"):
        TaskSwitcher(torch.nn.Linear(3, 3), base)


def test_verify_hashes_what_is_there(base: Path, tmp_path: Path):
    model = layered()
    switcher = TaskSwitcher(model, base)
    switcher.add("task", tasks(base, tmp_path, 1)[0])
    tensors = len(dict(model.named_parameters())) + 1
    assert switcher.verify() == tensors
    switcher.use("task")
    assert switcher.verify() == tensors
    for spoiled in (model.hidden.weight, model.steps):
        spoiled.data.view(-1)[3] += 1
        with pytest.raises(ResultMismatchError, match="holds other bits"):
            switcher.verify()
        spoiled.data.view(-1)[3] -= 1


def _cut_off(write: Callable[..., None], first: int, last: int) -> Callable[..., None]:
    """A way to write words whose calls from the first to the last, counted from 1, are interrupted."""
    calls = 0

    def cut(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if first <= calls <= last:
            raise KeyboardInterrupt
        write(*args)

    return cut


def test_a_failure_half_way_leaves_the_task_before_whole(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    first, second = tasks(base, tmp_path, 2)
    model = layered()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    switcher.add("first", first)
    switcher.add("second", second)
    switcher.use("first")
    standing = bits(model.state_dict())
    write_words = TensorWords.scatter
    for cut in range(1, 11):
        monkeypatch.setattr(TensorWords, "scatter", _cut_off(write_words, cut, cut))
        with pytest.raises(KeyboardInterrupt):
            switcher.use("second")
        assert switcher.current == "first"
        assert same(model.state_dict(), standing)
        monkeypatch.setattr(TensorWords, "scatter", write_words)
        assert switcher.verify()
    switcher.use("second")
    assert same(model.state_dict(), result_bits(base, second))
    switcher.use(None)
    assert same(model.state_dict(), before)


def test_a_switch_cut_off_twice_is_mended_by_the_next(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = tasks(base, tmp_path, 2)
    model = layered()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    switcher.add("first", first)
    switcher.add("second", second)
    switcher.use("first")
    write_words = TensorWords.scatter
    for cut in range(1, 8):
        monkeypatch.setattr(TensorWords, "scatter", _cut_off(write_words, cut, 1000))
        with pytest.raises(KeyboardInterrupt):
            switcher.use("second")
        with pytest.raises(UsageError, match="cut off half-way"):
            switcher.version  # noqa: B018 - asking is the test
        monkeypatch.setattr(TensorWords, "scatter", write_words)
        switcher.use("first")
        assert same(model.state_dict(), result_bits(base, first))
    switcher.use(None)
    assert same(model.state_dict(), before)


def test_a_damaged_task_changes_nothing(base: Path, tmp_path: Path):
    file = tasks(base, tmp_path, 1)[0]
    content = bytearray(file.read_bytes())
    content[200] ^= 1  # in the first chunk
    model = layered()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    switcher.add("task", bytes(content))
    with pytest.raises(CorruptFileError):
        switcher.use("task")
    assert switcher.current is None
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("how", ["optimiser", "load_state_dict", "assign", "to"])
def test_who_else_writes_is_found_out(how: str, base: Path, tmp_path: Path):
    model = layered()
    switcher = TaskSwitcher(model, base)
    switcher.add("task", tasks(base, tmp_path, 1)[0])
    switcher.use("task")
    if how == "optimiser":
        model(torch.tensor([[1, 2]])).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    elif how == "to":
        model.to(torch.float64)
    else:
        model.load_state_dict(layered(2).state_dict(), assign=how == "assign")
    there = bits(model.state_dict())
    with pytest.raises(UsageError, match="written by others" if how[0] in "ol" else "replaced or moved"):
        switcher.use(None)
    assert same(model.state_dict(), there)


def test_compiled_code_is_not_compiled_again(base: Path, tmp_path: Path):
    from torch._dynamo.testing import CompileCounter

    files = tasks(base, tmp_path, 2)
    torch._dynamo.reset()  # what other tests compiled of this class, or gave up to compile
    counter = CompileCounter()
    model = layered()
    compiled = torch.compile(model, backend=counter)
    switcher = TaskSwitcher(compiled, base)
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = compiled(tokens)
        assert counter.frame_count == 1
        answers = []
        for at, file in enumerate(files):
            switcher.add(f"task{at}", file)
            switcher.use(f"task{at}")
            answers.append(compiled(tokens))
            assert torch.equal(answers[-1], model(tokens))
        switcher.use(None)
        assert torch.equal(compiled(tokens), plain)
    assert not torch.equal(answers[0], plain)
    assert not torch.equal(answers[0], answers[1])
    assert counter.frame_count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("coding", CODINGS)
def test_on_cuda_the_bits_are_the_same(coding: str, base: Path, tmp_path: Path):
    files = tasks(base, tmp_path, 2, **CODINGS[coding])
    model = layered().cuda()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
        switcher.use(f"task{at}")
        assert same(model.state_dict(), result_bits(base, file))
    switcher.use(None)
    assert same(model.state_dict(), before)

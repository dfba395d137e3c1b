"""Where a result's tensors go in a module: prefixes, ties, heads, resized ones, other dtypes; or nowhere, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

import diffpack  # noqa: E402
from diffpack.errors import CheckpointError, UnsupportedCheckpointError, UsageError, WrongBaseError  # noqa: E402
from diffpack.live import TaskSwitcher  # noqa: E402
from diffpack.live.words import TensorWords  # noqa: E402
from tests.tools import live_models  # noqa: E402
from tests.tools.live_tasks import bits, changed, layered, result_bits, same, tasks, write  # noqa: E402


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.safetensors", layered().state_dict())


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = layered()
        self.head = nn.Linear(24, 3)


def test_a_module_may_have_the_base_under_a_prefix(base: Path, tmp_path: Path):
    file = tasks(base, tmp_path, 1)[0]
    model = Wrapped()
    before = bits(model.state_dict())
    for files in (base, None):
        switcher = TaskSwitcher(model, files)
        switcher.add("task", file)
        switcher.use("task")
        assert same(model.body.state_dict(), result_bits(base, file))
        switcher.use(None)
        assert same(model.state_dict(), before)


def test_a_new_head_goes_where_the_module_has_one(base: Path, tmp_path: Path):
    state = changed(load_file(base), 1)
    head = {"head.weight": torch.randn(3, 24), "head.bias": torch.randn(3), "extra": torch.randn(2)}
    diffpack.extract(base, write(tmp_path / "tuned.safetensors", state | head), tmp_path / "task.dpk")
    model = Wrapped()
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, base)
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert torch.equal(model.head.weight, head["head.weight"])
    assert torch.equal(model.head.bias, head["head.bias"])
    assert {name: value.tolist() for name, value in switcher.tensors("task").items()} == {
        "extra": head["extra"].tolist()
    }
    switcher.use(None)
    assert same(model.state_dict(), before)


def test_a_grown_table_goes_into_a_grown_module_and_else_nowhere(base: Path, tmp_path: Path):
    state = changed(load_file(base), 1)
    state["table.weight"] = torch.cat([state["table.weight"], torch.randn(2, 24)])
    diffpack.extract(base, write(tmp_path / "tuned.safetensors", state), tmp_path / "task.dpk")
    torch.manual_seed(0)
    grown = layered()
    grown.table.weight = nn.Parameter(torch.cat([grown.table.weight.data, torch.zeros(2, 24)]))
    grown.output.weight = grown.table.weight
    before = bits(grown.state_dict())
    switcher = TaskSwitcher(grown, base)
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert same(grown.state_dict(), bits(state))
    assert switcher.tensors("task") == {}
    switcher.use(None)
    assert same(grown.state_dict(), before)
    model = layered()
    switcher = TaskSwitcher(model, base)
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert torch.equal(switcher.tensors("task")["table.weight"], state["table.weight"])
    assert torch.equal(model.hidden.weight, state["hidden.weight"])


def untied() -> nn.Module:
    model = layered()
    model.output.weight = nn.Parameter(model.table.weight.detach().clone())
    return model


def test_a_result_that_ties_writes_both_of_a_module_that_does_not(base: Path, tmp_path: Path):
    both = {name: value.clone() for name, value in layered().state_dict().items()}
    save_file(both, tmp_path / "both.safetensors")
    state = changed(both, 3)
    state["output.weight"] = state["table.weight"].clone()
    save_file(state, tmp_path / "tuned.safetensors")
    diffpack.extract(tmp_path / "both.safetensors", tmp_path / "tuned.safetensors", tmp_path / "task.dpk")
    for model in (untied(), layered()):
        switcher = TaskSwitcher(model, tmp_path / "both.safetensors")
        switcher.add("task", tmp_path / "task.dpk")
        switcher.use("task")
        assert same(model.state_dict(), bits(state))
        switcher.use(None)
        assert same(model.state_dict(), bits(both))


@pytest.mark.parametrize("side", ["one", "each"])
def test_a_tie_the_result_has_not_is_refused(side: str, tmp_path: Path):
    both = {name: value.clone() for name, value in layered().state_dict().items()}
    save_file(both, tmp_path / "both.safetensors")
    state = {name: value.clone() for name, value in both.items()}
    state["table.weight"][3, 3] += 1
    if side == "each":
        state["output.weight"][4, 4] += 1
    save_file(state, tmp_path / "tuned.safetensors")
    diffpack.extract(tmp_path / "both.safetensors", tmp_path / "tuned.safetensors", tmp_path / "task.dpk")
    model = layered()
    switcher = TaskSwitcher(model, tmp_path / "both.safetensors")
    switcher.add("task", tmp_path / "task.dpk")
    with pytest.raises(UsageError, match=r"one tensor in the module .* differ in the result"):
        switcher.use("task")
    assert same(model.state_dict(), bits(both))
    model = untied()
    switcher = TaskSwitcher(model, tmp_path / "both.safetensors")
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert same(model.state_dict(), bits(state))


def test_a_head_that_is_near_to_another_tensor_is_written_whole(base: Path, tmp_path: Path):
    """Its reference is not what stood in its place."""
    both = {name: value.clone() for name, value in layered().state_dict().items()}
    both["output.weight"] = torch.randn(40, 24)
    save_file(both, tmp_path / "both.safetensors")
    state = dict(both)
    state["output.weight"] = both["table.weight"].clone()
    state["output.weight"][0, :3] += 1
    save_file(state, tmp_path / "tuned.safetensors")
    diff = diffpack.extract(tmp_path / "both.safetensors", tmp_path / "tuned.safetensors", tmp_path / "task.dpk")
    assert diff.manifest.copies == {"output.weight": "table.weight"}
    model = untied()
    model.output.weight.data.copy_(both["output.weight"])
    switcher = TaskSwitcher(model, tmp_path / "both.safetensors")
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert same(model.state_dict(), bits(state))
    switcher.use(None)
    assert same(model.state_dict(), bits(both))


@pytest.mark.parametrize("options", [{}, {"values": "int8"}, {"profile": "smallest"}])
def test_a_cast_model_has_the_result_rounded_once(options: dict[str, str], base: Path, tmp_path: Path):
    file = tasks(base, tmp_path, 1, **options)[0]
    model = layered().to(torch.bfloat16)
    before = bits(model.state_dict())
    with pytest.raises(WrongBaseError, match=r"hidden\.weight is BF16\[48, 24\], not F32.*cast=True"):
        TaskSwitcher(model, base)
    switcher = TaskSwitcher(model, base, cast=True)
    switcher.add("task", file)
    switcher.use("task")
    result = diffpack.load(base, file, framework="torch")
    assert same(model.state_dict(), bits({n: v.bfloat16() if v.is_floating_point() else v for n, v in result.items()}))
    with pytest.raises(UsageError, match="cannot be verified"):
        switcher.verify()
    switcher.use(None)
    assert same(model.state_dict(), before)
    with pytest.raises(WrongBaseError, match="other values"):
        TaskSwitcher(layered(1).to(torch.bfloat16), base, cast=True)
    with pytest.raises(UsageError, match="needs base="):
        TaskSwitcher(model, cast=True)


@pytest.mark.parametrize("layout", ["turned", "channels last", "a column of a wider one", "no dimension"])
def test_tensors_of_any_strides_are_written_in_place(layout: str, tmp_path: Path):
    made = {
        "turned": lambda: torch.randn(30, 20).t(),
        "channels last": lambda: torch.randn(4, 5, 6, 7).to(memory_format=torch.channels_last),
        "a column of a wider one": lambda: torch.randn(20, 40)[:, 5:25],
        "no dimension": lambda: torch.tensor(1.5),
    }
    model = nn.Module()
    model.weight = nn.Parameter(made[layout](), requires_grad=False)
    shape, where = model.weight.shape, model.weight.stride()
    save_file({"weight": model.weight.data.contiguous()}, tmp_path / "base.safetensors")
    state = changed({"weight": model.weight.data.contiguous()}, 1, 0.5)
    save_file(state, tmp_path / "tuned.safetensors")
    diffpack.extract(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / "task.dpk")
    before = bits(model.state_dict())
    switcher = TaskSwitcher(model, tmp_path / "base.safetensors")
    switcher.add("task", tmp_path / "task.dpk")
    switcher.use("task")
    assert same(model.state_dict(), bits(state))
    assert (model.weight.shape, model.weight.stride()) == (shape, where)
    switcher.use(None)
    assert same(model.state_dict(), before)


DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_words_of_every_dtype_are_gathered_and_written_by_their_bits(dtype: torch.dtype, turned: bool):
    entries = torch.randint(0, 2 if dtype == torch.bool else 256, (6, 8 * dtype.itemsize), dtype=torch.uint8)
    tensor = entries.view(dtype)
    tensor = tensor.clone().t() if turned else tensor
    expected = tensor.contiguous().view(torch.uint8).clone()
    words = TensorWords(tensor, "it")
    index = torch.arange(words.info.words, dtype=torch.int32)[1::3]
    whole = words.gather(None)
    assert torch.equal(whole[index], words.gather(index))
    assert torch.equal(words.slice(2, 9), whole[2:9])
    other = whole.flip(0)
    words.scatter(index, other[index])
    wanted = whole.clone()
    wanted[index.long()] = other[index]
    assert torch.equal(words.gather(None), wanted)
    words.scatter(None, whole)
    assert torch.equal(tensor.contiguous().view(torch.uint8), expected)


def test_tensors_that_cannot_be_written_are_named(base: Path):
    model = layered()
    model.hidden.weight = nn.Parameter(torch.randn(1, 24).expand(48, 24), requires_grad=False)
    with pytest.raises(UnsupportedCheckpointError, match=r"hidden\.weight: its entries share memory"):
        TaskSwitcher(model, base)
    model = layered()
    memory = torch.zeros(48 * 24 + 10)
    model.hidden.weight = nn.Parameter(memory[: 48 * 24].view(48, 24))
    model.hidden.bias = nn.Parameter(memory[48 * 24 - 40 : 48 * 24 + 8])
    with pytest.raises(UnsupportedCheckpointError, match=r"hidden\.weight and hidden\.bias share a part"):
        TaskSwitcher(model, base)
    with torch.device("meta"):
        model = layered()
    with pytest.raises(UnsupportedCheckpointError, match="on the meta device"):
        TaskSwitcher(model, base)
    with pytest.raises(UsageError, match=r"takes a torch\.nn\.Module, not a dict"):
        TaskSwitcher({}, base)  # type: ignore[arg-type] - what is tried


def test_a_module_made_for_inference_is_switched(base: Path, tmp_path: Path):
    with torch.inference_mode():
        model = layered()
        file = tasks(base, tmp_path, 1)[0]
    switcher = TaskSwitcher(model, base)
    switcher.add("task", file)
    switcher.use("task")
    with torch.inference_mode():
        assert same(model.state_dict(), result_bits(base, file))


@pytest.mark.parametrize("made", [False, True])
def test_switching_inside_inference_mode_is_switching(made: bool, base: Path, tmp_path: Path):
    model = layered()
    file = tasks(base, tmp_path, 1)[0]
    with torch.inference_mode(made):
        switcher = TaskSwitcher(model, base)
        switcher.add("task", file)
    with torch.inference_mode():
        switcher.use("task")
    assert same(model.state_dict(), result_bits(base, file))
    with torch.inference_mode(not made):
        switcher.use(None)
    assert same(model.state_dict(), bits(layered().state_dict()))


def test_files_that_words_are_still_read_from_must_stay_what_they_were(base: Path, tmp_path: Path):
    file = tasks(base, tmp_path, 1)[0]
    switcher = TaskSwitcher(layered().to(torch.bfloat16), base, cast=True)
    switcher.add("task", file)
    write(base, layered(1).state_dict())
    with pytest.raises(CheckpointError, match="changed while it was read"):
        switcher.use("task")
    assert switcher.current is None
    held = TaskSwitcher(layered(1), base)  # one that holds all of the base needs its files no more
    other = tmp_path / "other"
    other.mkdir()
    held.add("task", tasks(base, other, 1)[0])
    base.unlink()
    held.use("task")


def test_columns_of_one_matrix_are_tensors_of_their_own(tmp_path: Path):
    memory = torch.randn(6, 10)
    model = nn.Module()
    model.left, model.right = nn.Parameter(memory[:, :4]), nn.Parameter(memory[:, 4:9])
    base = write(tmp_path / "base.safetensors", model.state_dict())
    file = tasks(base, tmp_path, 1)[0]
    switcher = TaskSwitcher(model, base)
    switcher.add("task", file)
    switcher.use("task")
    assert same(model.state_dict(), result_bits(base, file))
    model.right = nn.Parameter(memory[:, 3:9])
    with pytest.raises(UnsupportedCheckpointError, match="share a part of their memory"):
        TaskSwitcher(model)


def test_memory_that_models_share_is_not_written(tmp_path: Path):
    pytest.importorskip("transformers")
    base = live_models.make("BertModel", tmp_path / "base")
    tuned = live_models.loaded("BertModel", base)
    tuned.pooler.dense.bias.data[0] += 1
    diffpack.extract(base, tuned.state_dict(), tmp_path / "task.dpk")
    model = diffpack.live.from_pretrained(base, tmp_path / "task.dpk")
    with pytest.raises(UsageError, match=r"memory that other models share: load the model with .*share=False"):
        TaskSwitcher(model)
    TaskSwitcher(diffpack.live.from_pretrained(base, tmp_path / "task.dpk", share=False))

"""What cannot be mixed is refused by name, never computed wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from diffpack.errors import UsageError  # noqa: E402
from tests.tools.live_tasks import bits, changed, layered, same  # noqa: E402
from tests.tools.mixed import add, switcher_of, untouched  # noqa: E402

X = torch.randn(2, 3, 8)
TOKENS = torch.arange(6).view(2, 3)


class Using(nn.Module):
    """A parent that uses its child's weight itself, in one of several ways."""

    def __init__(self, use: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.child = nn.Linear(8, 8, bias=False)
        self.use = use

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(x, self.child.weight)


USES: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "linear": lambda x, w: functional.linear(x, w),
    "an operator": lambda x, w: x @ w,
    "the other side": lambda x, w: 1 + w,
    "data": lambda x, w: x @ w.data,
    "detach": lambda x, w: w.detach(),
    "a view": lambda x, w: w.view(-1),
    "an index": lambda x, w: w[0],
    "a transpose": lambda x, w: w.T,
    "numpy": lambda x, w: w.detach().numpy(),
    "a cast": lambda x, w: w.to(torch.float64),
    "a tensor made of it": lambda x, w: x.new_tensor(w),
    "by keyword": lambda x, w: functional.linear(input=x, weight=w),
    "in a list": lambda x, w: torch.cat([x[0], w]),
    "an operation by its name": lambda x, w: torch.ops.aten.mm.default(x[0], w),
    "a derivative": lambda x, w: torch.func.grad(lambda p: p.sum())(w),
    "einsum": lambda x, w: torch.einsum("rsi,oi->rso", x, w),
}


@pytest.mark.parametrize("use", USES)
def test_a_parent_that_takes_a_parameter_itself_is_stopped(use: str, tmp_path: Path):
    model = Using(USES[use])
    switcher = switcher_of(model, tmp_path)
    with pytest.raises(UsageError, match=r"child\.weight.*takes it directly"), switcher.mixed(["a", "b"]):
        model(X)
    assert untouched(model)


def test_views_taken_before_are_stopped_too(tmp_path: Path):
    model = Using(lambda x, w: x)
    taken = [model.child.weight.detach()[1:], model.child.weight.data.view(-1)[3:]]
    switcher = switcher_of(model, tmp_path)
    for view in taken:
        with pytest.raises(UsageError, match=r"child\.weight"), switcher.mixed(["a", "b"]):
            view.sum()


def test_what_tells_only_the_kind_of_a_tensor_is_let_through(tmp_path: Path):
    def kind(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        assert w.shape == (8, 8)
        assert (w.dtype, w.device, w.dim(), w.size(0)) == (x.dtype, x.device, 2, 8)
        return x.to(w) + torch.zeros_like(w)[0] + x.type_as(w)

    model = Using(kind)
    switcher = switcher_of(model, tmp_path)
    with switcher.mixed(["a", "b"]):
        assert torch.equal(model(X), 2 * X)


def test_a_table_under_another_name_is_stopped_as_well(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    with pytest.raises(UsageError, match=r"table\.weight"), switcher.mixed(["a", "b"]):
        functional.linear(torch.zeros(2, 24), model.output.weight)


def test_attention_of_torch_is_refused(tmp_path: Path):
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.attention(x, x, x)[0]
            return found

    model = Attending().eval()
    switcher = switcher_of(model, tmp_path)
    with pytest.raises(UsageError, match=r"attention \(MultiheadAttention\)"), switcher.mixed(["a", "b"]):
        model(X)
    state = dict(model.state_dict())
    state["attention.out_proj.weight"] = state["attention.out_proj.weight"] + 1
    add(switcher, "output", tmp_path, state)
    with pytest.raises(UsageError, match=r"out_proj\.weight"), switcher.mixed(["output", None]):
        model(X)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sequence first": (lambda: nn.TransformerEncoderLayer(8, 2, 16), r"batch_first=False"),
    "recurrent": (lambda: nn.Sequential(nn.LSTM(8, 8)), r"0 \(LSTM\)"),
    "recurrent, rows first": (lambda: nn.Sequential(nn.LSTM(8, 8, batch_first=True)), r"0 \(LSTM\): nothing is known"),
    "mixes rows": (lambda: nn.Sequential(nn.BatchNorm1d(8)), r"0 \(BatchNorm1d\): it mixes the rows"),
    "threads": (lambda: nn.DataParallel(nn.Linear(8, 8)), r"DataParallel.*\.module"),
    "a table that is normed": (lambda: nn.Sequential(nn.Embedding(9, 8, max_norm=1.0)), "max_norm"),
    "experts": (lambda: nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(8, 8)])}), r"experts\.0 \(Linear\)"),
    "its weight is computed": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
        r"nothing is known about what it does with .*parametrizations",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_modules_that_cannot_be_mixed_are_named_before_anything_runs(kind: str, tmp_path: Path):
    make, message = REFUSED[kind]
    model = make()
    switcher = switcher_of(model, tmp_path)
    with pytest.raises(UsageError, match=message), switcher.mixed(["a", "b"]):
        pytest.fail("the block was entered")
    assert untouched(model)


def test_a_batch_norm_that_does_not_train_is_mixed(tmp_path: Path):
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    switcher = switcher_of(model, tmp_path)
    with switcher.mixed(["a", None]):
        found = model(X)
    with switcher.task("a"), torch.no_grad():
        assert torch.equal(found[0], model(X)[0])


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own code
def test_compiled_modules_are_refused(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    model.hidden.compile()
    with pytest.raises(UsageError, match=r"hidden is compiled"), switcher.mixed(["a", "b"]):
        pass


def test_code_compiled_from_the_model_is_never_run_for_a_batch(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        alone = compiled(TOKENS)
    with switcher.mixed(["a", "b"]):
        expected = model(TOKENS)
    found = expected
    with contextlib.suppress(UsageError), switcher.mixed(["a", "b"]):
        found = compiled(TOKENS)  # torch compiles nothing under modes like the guard; if it does, that is refused
    assert torch.equal(found, expected)
    with torch.no_grad():
        assert torch.equal(compiled(TOKENS), alone)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # scripts still exist
def test_scripted_functions_are_stopped(tmp_path: Path):
    scripted = torch.jit.script(_product)
    model = Using(scripted)
    switcher = switcher_of(model, tmp_path)
    for _ in range(3):
        with pytest.raises(UsageError, match="takes it directly"), switcher.mixed(["a", "b"]):
            model(X)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_scripted_modules_are_refused(tmp_path: Path):
    switcher = switcher_of(nn.Sequential(torch.jit.script(nn.Linear(8, 8))), tmp_path)
    with pytest.raises(UsageError, match=r"0 \(RecursiveScriptModule\): nothing is known"), switcher.mixed(["a"]):
        pass


def _product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


def test_a_wrapper_of_others_is_refused(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    model.hidden.forward = lambda x: x  # type: ignore[method-assign]  # as hooks do
    with pytest.raises(UsageError, match=r"hidden \(Linear\): others replaced its forward"), switcher.mixed(["a"]):
        pass


GIVEN: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "other rows": (lambda model: model(torch.zeros(5, 3, dtype=torch.long)), r"mixed of 2 rows.*\(5, 3\)"),
    "flattened": (lambda model: model.hidden(torch.zeros(6, 24)), r"hidden \(Linear\).*\(6, 24\)"),
    "one row for all": (lambda model: model.hidden(torch.zeros(1, 3, 24)), r"hidden \(Linear\).*\(1, 3, 24\)"),
    "a vector": (lambda model: model.hidden(torch.zeros(24)), r"hidden \(Linear\)"),
    "positions or rows": (lambda model: model.table(torch.arange(2)), r"table \(Embedding\).*one dimension"),
    "only what is normed": (lambda model: model.norm(torch.zeros(24)), r"norm \(LayerNorm\)"),
    "beams": (lambda model: model.table(torch.zeros(4, 3, dtype=torch.long)), r"table \(Embedding\).*\(4, 3\)"),
}


@pytest.mark.parametrize("given", GIVEN)
def test_inputs_without_the_rows_are_refused(given: str, tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    call, message = GIVEN[given]
    with pytest.raises(UsageError, match=message), switcher.mixed(["a", "b"]):
        call(model)
    assert untouched(model)


def test_gradients_are_refused(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    with switcher.mixed(["a", "b"]):
        assert not model(TOKENS).requires_grad
    with pytest.raises(UsageError, match="no gradients"), switcher.mixed(["a", "b"]), torch.enable_grad():
        model(TOKENS)


def test_autocast_is_refused(tmp_path: Path):
    model = layered()
    switcher = switcher_of(model, tmp_path)
    with pytest.raises(UsageError, match="autocast"), switcher.mixed(["a", "b"]), torch.autocast("cpu", torch.bfloat16):
        model(TOKENS)


def test_lists_that_are_none_are_refused(tmp_path: Path):
    switcher = switcher_of(layered(), tmp_path)
    for wrong in ([], "a"):
        with pytest.raises(UsageError, match="one task's name for each row"), switcher.mixed(wrong):
            pass
    with pytest.raises(UsageError, match="no task 'x' was added"), switcher.mixed(["a", "x"]):
        pass
    with switcher.task("a"), pytest.raises(UsageError, match="another task"), switcher.mixed(["a"]):
        pass


def test_a_task_with_a_grown_table_is_refused_and_one_with_a_head_is_not(tmp_path: Path):
    model = layered()
    before = bits(model.state_dict())
    switcher = switcher_of(model, tmp_path)
    state = changed(model.state_dict(), 5)
    grown = torch.cat([state["table.weight"], torch.ones(2, 24)])
    add(switcher, "grown", tmp_path, {**state, "table.weight": grown, "output.weight": grown})
    message = r"'grown' has tensors of another shape.*table\.weight"
    with pytest.raises(UsageError, match=message), switcher.mixed(["grown", "a"]):
        pass
    add(switcher, "more", tmp_path, {**state, "extra.weight": torch.ones(3)})
    with switcher.mixed(["more", "a"]):
        answers = model(TOKENS)
    with switcher.task("more"), torch.no_grad():
        assert torch.allclose(answers[0], model(TOKENS)[0], rtol=1e-5, atol=1e-6)
    assert list(switcher.tensors("more")) == ["extra.weight"]
    assert same(model.state_dict(), before)

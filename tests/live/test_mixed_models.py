"""Models of transformers as they are answer a mixed batch as they answer task by task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from diffpack.live.mixed import changed  # noqa: E402
from tests.tools.live_tasks import bits, same  # noqa: E402
from tests.tools.mixed import NAMES, apart, by_task, mixed, switcher_of, untouched  # noqa: E402
from tests.tools.mixed_models import KINDS, inputs, tiny  # noqa: E402

ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 3e-2}


@pytest.fixture(params=["sparse products", "own weights"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sparse products wherever that can be, or each task's own weights: tiny matrices lie about the bound."""
    monkeypatch.setattr(changed, "SPARSE_UP_TO", 1.0 if request.param == "sparse products" else 0.0)
    return str(request.param)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_a_mixed_batch_answers_as_its_tasks_do(kind: str, dtype: torch.dtype, tmp_path: Path):
    model, given = tiny(kind, dtype), inputs(kind, len(NAMES), dtype)
    switcher = switcher_of(model, tmp_path, KINDS[kind].head)

    def answer(rows: Sequence[int]) -> torch.Tensor:
        return model(**{name: value[list(rows)] for name, value in given.items()}).logits

    before = bits(model.state_dict())
    expected = by_task(switcher, NAMES, answer)
    assert apart(mixed(switcher, NAMES, answer), expected) < ROUNDING[dtype]
    assert apart(by_task(switcher, [None] * len(NAMES), answer), expected) > 2 * ROUNDING[dtype]  # tasks matter
    assert same(model.state_dict(), before)
    assert untouched(model)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].generates])
def test_generated_tokens_are_those_of_each_task(kind: str, tmp_path: Path):
    model, given = tiny(kind), inputs(kind, len(NAMES))
    given = {name: value for name, value in given.items() if name != "decoder_input_ids"}
    given["attention_mask"] = torch.ones_like(given["attention_mask"])
    switcher = switcher_of(model, tmp_path, KINDS[kind].head)

    def answer(rows: Sequence[int]) -> torch.Tensor:
        cut = {name: value[list(rows)] for name, value in given.items()}
        return model.generate(**cut, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)

    expected = by_task(switcher, NAMES, answer)
    assert torch.equal(mixed(switcher, NAMES, answer), expected)
    assert not torch.equal(by_task(switcher, [None] * len(NAMES), answer), expected)

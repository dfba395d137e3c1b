"""Questions that come together are asked together; what is wrong with one is told to who asked it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("transformers")

from diffpack.errors import CorruptFileError
from tests.tools.example_runs import FOLDER

MOST = 4


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return pytest.importorskip("serve")


class Recorder:
    """Answers with what was asked; notes how many were asked together."""

    def __init__(self, serve: ModuleType) -> None:
        self.together: list[int] = []
        self._serve = serve

    def head(self, name: str | None) -> None:
        if name == "unknown":
            raise self._serve.UnknownTaskError("no task 'unknown'")

    def mixed(self, questions):
        self.together.append(len(questions))
        if any(question.task == "damaged" for question in questions):
            raise CorruptFileError("damaged.dpk: damaged")
        return [self._serve.Answer(task=question.task, version=question.text) for question in questions]


def test_each_gets_its_own_answer_or_its_own_error(serve: ModuleType):
    recorder = Recorder(serve)
    gatherer = serve.Gatherer(recorder, 0.2, MOST)

    def ask(at: int):
        name = ("a", "b", "damaged", "unknown")[at % 4]
        try:
            return gatherer.ask(serve.Question(task=name, text=str(at)))
        except (CorruptFileError, serve.UnknownTaskError) as error:
            return error

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    gatherer.close()
    for at, answer in enumerate(answers):
        if at % 4 < 2:
            assert (answer.task, answer.version) == ("ab"[at % 4], str(at))
        else:
            assert isinstance(answer, CorruptFileError if at % 4 == 2 else serve.UnknownTaskError)
    assert 1 < max(recorder.together) <= MOST

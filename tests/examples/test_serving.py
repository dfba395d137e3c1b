"""The service gives each question the answer of its own task, whoever else asks; it says which weights gave it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")

import diffpack
from diffpack.train import TrainOptions, train
from tests.tools.example_runs import printed
from tests.tools.served_tasks import LABELS, Alone, Served, make_task, running
from tests.tools.tiny_bert import FAST, WORDS

ROUNDING = 1e-4
"""Of a score: products of rows that are padded, or of several tasks, round otherwise."""
QUESTIONS = 120
MODES = [
    "switch",
]


@pytest.fixture(scope="module")
def served(material: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with three tasks, one of them trained, one file that is no diff, one with a damaged chunk."""
    base, texts, dev = material
    folder = tmp_path_factory.mktemp("tasks")
    for seed, (name, labels) in enumerate(LABELS.items(), 1):
        make_task(base, folder / f"{name}.dpk", labels, seed)
    train(base, texts, dev, folder / "trained.dpk", TrainOptions(density=0.2, lr=0.1, **FAST))
    labels = {**LABELS, "trained": ("bad", "good")}
    alone = {name: Alone(base, folder / f"{name}.dpk", labels[name]) for name in labels}
    whole = (folder / "two.dpk").read_bytes()
    (folder / "cut.dpk").write_bytes(whole[: len(whole) // 2])
    (folder / "rotten.dpk").write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])  # in the first chunk
    with running(base, folder) as (address, said):
        assert [line.split()[0] for line in said] == ["cut"]
        yield Served(address, alone)


def questions(served: Served, seed: int) -> list[tuple[str | None, str]]:
    """Tasks in random order, the base among them, and texts."""
    rng = random.Random(seed)
    names = [*served.alone, None]
    return [(rng.choice(names), " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))) for _ in range(QUESTIONS)]


@pytest.mark.parametrize("mode", MODES)
def test_many_at_once_get_the_answers_each_task_gives_alone(served: Served, mode: str):
    asked = questions(served, 0)
    base = served.ask("GET", "/health")[1]["base"]

    def ask(question: tuple[str | None, str]):
        task, text = question
        body = {"text": text} if task is None else {"task": task, "text": text}
        return served.ask("POST", f"/predict?mode={mode}", body)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, asked))
    for (task, text), (status, answer) in zip(asked, answers, strict=True):
        assert (status, answer["task"]) == (200, task)
        if task is None:
            assert answer["version"] == base
            assert len(answer["embedding"]) == 16
            continue
        assert answer["version"].startswith(f"{served.alone[task].version}-")
        expected = served.alone[task].scores(text)
        assert answer["scores"] == pytest.approx(expected, abs=ROUNDING)
        assert answer["label"] in expected
        assert answer["scores"][answer["label"]] == max(answer["scores"].values())


def test_tasks_of_as_many_labels_would_be_told_apart(served: Served):
    for _, text in questions(served, 0):
        two, trained = (list(served.alone[name].scores(text).values()) for name in ("two", "trained"))
        assert abs(two[0] - trained[0]) > 10 * ROUNDING


@pytest.mark.parametrize("mode", MODES)
def test_who_asks_for_a_damaged_task_is_told_and_nobody_else(served: Served, mode: str):
    def ask(task: str):
        return served.ask("POST", f"/predict?mode={mode}", {"task": task, "text": "good word1"})

    names = ["rotten", "two", "cut", "four", "rotten", "trained", "unknown"] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, names))
    for name, (status, answer) in zip(names, answers, strict=True):
        if name in served.alone:
            assert answer["scores"] == pytest.approx(served.alone[name].scores("good word1"), abs=ROUNDING)
        else:
            assert status == (404 if name == "unknown" else 500)
            assert f"{name}.dpk" in answer["detail"] or "no task 'unknown'" in answer["detail"]


def test_tasks_are_listed_pinned_and_evicted(served: Served):
    def listed():
        tasks = served.ask("GET", "/tasks")[1]["tasks"]
        return {task["name"]: task for task in tasks}

    assert listed().keys() == {*served.alone, "cut", "rotten"}
    assert served.ask("POST", "/tasks/four/pin")[0] == 200
    four = listed()["four"]
    assert (four["decoded"], four["pinned"], four["error"]) == (True, True, None)
    assert served.ask("POST", "/tasks/four/evict") == (200, {"task": "four", "state": "evicted"})
    assert not listed()["four"]["decoded"]
    assert served.ask("POST", "/tasks/four/prefetch")[0] == 202
    assert listed()["cut"]["error"]
    for what in ("pin", "prefetch", "evict"):
        assert served.ask("POST", f"/tasks/unknown/{what}")[0] == 404
        assert served.ask("POST", f"/tasks/cut/{what}")[0] == 500


def test_the_base_is_the_one_the_tasks_were_made_from(served: Served, material: tuple[Path, Path, Path]):
    status, answer = served.ask("GET", "/health")
    assert (status, answer["status"], answer["tasks"]) == (200, "ok", len(served.alone) + 1)
    assert answer["base"] == f"{diffpack.fingerprint(material[0])}-0"


@pytest.mark.parametrize("body", [{"task": "two"}, {"text": 3}, {"text": "x" * 30_000}])
def test_what_is_no_question_is_refused(served: Served, body: dict[str, object]):
    assert served.ask("POST", "/predict", body)[0] == 422


def test_the_load_test_says_how_long_answers_take(served: Served):
    bounds = ("--requests", 20, "--seconds", 10, "--clients", 4)
    text = printed("load", *served.alone, "--url", f"http://{served.address}", *bounds)
    assert [line.split()[:3] for line in text.splitlines()[1:3]] == [
        ["switch", "20", "requests"],
        ["mixed", "20", "requests"],
    ]
    assert text.splitlines()[-1] == "every answer came from the task that was asked"


def test_the_load_test_asks_no_other_machine():
    with pytest.raises(AssertionError, match="is another machine"):
        printed("load", "--url", "http://192.0.2.1:8000")

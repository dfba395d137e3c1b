"""A model under a lease stays what it is; who wants it as something else waits in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffpack.errors import UsageError  # noqa: E402
from diffpack.live import TaskSwitcher  # noqa: E402
from diffpack.live.lease import Leases  # noqa: E402
from tests.tools.live_tasks import bits, layered, result_bits, same, tasks, write  # noqa: E402

PATIENCE = 20
"""Seconds after which a thread counts as stuck."""


@pytest.fixture
def switcher(tmp_path: Path) -> TaskSwitcher:
    model = layered()
    base = write(tmp_path / "base.safetensors", model.state_dict())
    made = TaskSwitcher(model, base)
    for at, file in enumerate(tasks(base, tmp_path)):
        made.add(f"task{at}", file)
    return made


def expected(folder: Path, at: int):
    return result_bits(folder / "base.safetensors", folder / f"task{at + 1}.dpk")


def test_a_block_holds_a_task_and_gives_back_what_was_used(switcher: TaskSwitcher, tmp_path: Path):
    model = switcher.model
    before = bits(model.state_dict())
    switcher.use("task0")
    with switcher.task("task1") as version:
        assert same(model.state_dict(), expected(tmp_path, 1))
        assert (switcher.current, switcher.version) == ("task1", version)
        with switcher.task("task1") as again:  # a thread may take the same once more
            assert again == version
        assert same(model.state_dict(), expected(tmp_path, 1))
    assert switcher.current == "task0"
    assert same(model.state_dict(), expected(tmp_path, 0))
    with switcher.task(None):
        assert same(model.state_dict(), before)
    with pytest.raises(ZeroDivisionError), switcher.task("task2"):
        raise ZeroDivisionError
    assert same(model.state_dict(), expected(tmp_path, 0))


def test_one_thread_cannot_wait_for_itself(switcher: TaskSwitcher):
    with switcher.task("task0"):
        with pytest.raises(UsageError, match="uses the model as another task"), switcher.task("task1"):
            pass
        with pytest.raises(UsageError, match="uses the model as another task"):
            switcher.use("task0")
        assert switcher.current == "task0"
    switcher.use("task1")


def test_nobody_switches_while_a_task_is_held(switcher: TaskSwitcher, tmp_path: Path):
    held, done = threading.Event(), []

    def use() -> None:
        held.wait(PATIENCE)
        switcher.use("task1")
        done.append("used")

    other = threading.Thread(target=use)
    other.start()
    with switcher.task("task0"):
        held.set()
        time.sleep(0.1)
        assert not done
        assert same(switcher.model.state_dict(), expected(tmp_path, 0))
    other.join(PATIENCE)
    assert done == ["used"]
    assert switcher.current == "task1"


def test_many_threads_each_see_their_own_task_whole(switcher: TaskSwitcher, tmp_path: Path):
    model = switcher.model
    before = bits(model.state_dict())
    wanted = [expected(tmp_path, at) for at in range(3)]

    def ask(number: int) -> bool:
        at = number * 7 % 4
        with switcher.task(None if at == 3 else f"task{at}"):
            right = same(model.state_dict(), before if at == 3 else wanted[at])
            time.sleep(0.001)
            return right and same(model.state_dict(), before if at == 3 else wanted[at])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(80), timeout=PATIENCE))
    assert switcher.current is None
    assert same(model.state_dict(), before)


class Log:
    """What leases did, in order."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.said: list[str] = []

    def put(self, key: str) -> Callable[[], None]:
        return lambda: self.said.append(f"put {key}")

    def back(self) -> None:
        self.said.append("back")

    def waiting(self, count: int) -> None:
        """Wait until so many wait."""
        end = time.monotonic() + PATIENCE
        while self.leases.waiting != count:
            assert time.monotonic() < end
            time.sleep(0.001)


def in_thread(log: Log, key: str, go: threading.Event) -> threading.Thread:
    def run() -> None:
        log.leases.acquire(key, log.put(key))
        log.said.append(f"has {key}")
        go.wait(PATIENCE)
        log.leases.release(log.back)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_turns_are_taken_in_the_order_they_were_asked_for():
    """Who comes after one who waits for another task waits, too: a busy task cannot starve the others."""
    log, go = Log(), threading.Event()
    log.leases.acquire("a", log.put("a"))
    threads = []
    for at, key in enumerate(["b", "b", "a"], start=1):
        threads.append(in_thread(log, key, go))
        log.waiting(at)
    log.leases.release(log.back)
    log.waiting(1)
    assert (log.said, log.leases.held) == (["put a", "put b", "has b", "has b"], 2)
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert log.said[4:] == ["put a", "has a", "back"]  # from task to task at once, back when nobody waits


def test_who_joins_does_not_put_again_and_a_failed_one_holds_nothing():
    log, go = Log(), threading.Event()
    first = in_thread(log, "a", go)
    while log.leases.held != 1:
        time.sleep(0.001)
    log.leases.acquire("a", log.put("a"))
    assert log.leases.held == 2
    log.leases.release(log.back)
    go.set()
    first.join(PATIENCE)
    assert log.said == ["put a", "has a", "back"]

    def fail() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        log.leases.acquire("b", fail)
    assert log.leases.held == 0
    log.leases.acquire("c", log.put("c"), alone=True)
    log.leases.release(log.back)

"""Load test of serve.py: questions to several tasks in random order, one task a question, in both modes.

::

    python examples/serve.py --base tiny/base --tasks tiny/tasks
    python examples/load.py

prints, for each mode, what came back and how long it took:

    3 tasks in random order, 16 clients, texts of 12 words
    switch   400 requests    105.3 /s   p50  112.9 ms   p95  411.5 ms
    mixed    400 requests    137.2 /s   p50   82.7 ms   p95  298.5 ms
    every answer came from the task that was asked

(A tiny model on two busy cores, the client's work among it; of three runs switch was the faster one once. Which it is
depends on the model, the tasks and the load: measure yours.)

It ends after so many requests a mode, or so many seconds, whichever comes first. Each answer must come from the task
that was asked, in its version: the exit code is 1 if one does not. Only this machine is asked unless --anywhere is
given. Nothing but Python is needed.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TEXT = "the a film day plot song was is not very good bad fine dull long short new old and but"
PATIENCE = 60
"""Seconds to wait for an answer."""


@dataclass
class Client:
    """One who asks, by a connection that stays open, and what came of it: seconds a request, and mistakes."""

    host: str
    seconds: list[float] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Give status and content of an answer."""
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def ask(self, mode: str, task: str, version: str, text: str) -> None:
        """Ask a task, and see who answers."""
        start = time.perf_counter()
        status, answer = self.send("POST", f"/predict?mode={mode}", {"task": task, "text": text})
        self.seconds.append(time.perf_counter() - start)
        if status != 200 or (answer["task"], answer["version"]) != (task, version):
            self.mistakes.append(f"{mode}, {task}: {status} {answer}")


def run(host: str, mode: str, versions: dict[str, str], options: argparse.Namespace) -> list[str]:
    """Ask in one mode, print what it took, give the mistakes."""
    rng = random.Random(options.seed)
    texts = [" ".join(rng.choices(TEXT.split(), k=options.words)) for _ in range(options.requests)]
    waiting = [(rng.choice(list(versions)), text) for text in texts]
    taking = threading.Lock()
    clients = [Client(host) for _ in range(options.clients)]
    for task, version in versions.items():  # read and decoded once before the clock runs
        clients[0].ask(mode, task, version, "once before")
    clients[0].seconds.clear()
    start = time.perf_counter()

    def work(client: Client) -> None:
        while time.perf_counter() - start < options.seconds:
            with taking:
                if not waiting:
                    return
                task, text = waiting.pop()
            client.ask(mode, task, versions[task], text)

    with ThreadPoolExecutor(options.clients) as pool:
        list(pool.map(work, clients))
    took = time.perf_counter() - start
    each = [1000 * seconds for client in clients for seconds in client.seconds]
    p95 = statistics.quantiles(each, n=20)[-1]
    print(
        f"{mode:<7}{len(each):>5} requests {len(each) / took:>8.1f} /s   "
        f"p50 {statistics.median(each):>6.1f} ms   p95 {p95:>6.1f} ms"
    )
    return [mistake for client in clients for mistake in client.mistakes]


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def main() -> int:
    """Ask in both modes; give the exit code."""
    parser = argparse.ArgumentParser(description="Load test of serve.py.")
    parser.add_argument("names", nargs="*", help="tasks to ask; without any, some of those that are served")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--anywhere", action="store_true", help="another machine than this one may be asked")
    parser.add_argument("--requests", type=int, default=400, help="a mode, at most")
    parser.add_argument("--seconds", type=float, default=30, help="a mode, at most")
    parser.add_argument("--clients", type=int, default=16, help="how many ask at the same time")
    parser.add_argument("--tasks", type=int, default=8, help="how many tasks are asked at most, if none is named")
    parser.add_argument("--words", type=int, default=12, help="of a text")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    url = urlsplit(options.url)
    if not (options.anywhere or is_loopback(url.hostname)):
        parser.error(f"{url.hostname} is another machine: --anywhere asks it, with its owner's leave")
    _, listed = Client(url.netloc).send("GET", "/tasks")
    versions = {task["name"]: task["version"] for task in listed["tasks"] if task["error"] is None}
    some = random.Random(options.seed).sample(sorted(versions), min(options.tasks, len(versions)))
    chosen = options.names or some
    if not chosen or not versions.keys() >= set(chosen):
        parser.error(f"{options.url} has these tasks: {', '.join(sorted(versions)) or 'none'}")
    versions = {name: versions[name] for name in chosen}
    print(f"{len(versions)} tasks in random order, {options.clients} clients, texts of {options.words} words")
    mistakes = [mistake for mode in ("switch", "mixed") for mistake in run(url.netloc, mode, versions, options)]
    for mistake in mistakes[:5]:
        print(mistake, file=sys.stderr)
    print(f"{len(mistakes)} answers were wrong" if mistakes else "every answer came from the task that was asked")
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())

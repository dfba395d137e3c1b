"""Serve many text classifiers of one base: the base once in memory, each task a small file beside it.

::

    pip install 'diffpack[serve]'

    # tasks, each a .dpk file named after the task: trained as a sparse diff, or cut from any fine-tune of the base
    pip install 'diffpack[train]'
    diffpack train --model base --train sst2/train.tsv --dev sst2/dev.tsv -o tasks/sst2.dpk
    diffpack extract --base base --tuned my-fine-tune -o tasks/rte.dpk

    # or a tiny base with three tasks, made in a second
    python examples/transformers_tasks.py --keep tiny          # tiny/base, tiny/tasks

    python examples/serve.py --base tiny/base --tasks tiny/tasks
    curl -s 127.0.0.1:8000/predict -H 'content-type: application/json' -d '{"task": "mood", "text": "a fine day"}'
    python examples/load.py                                    # in another terminal

A request may name a task; without one it is the base that answers. The answer says the task and its version, which is
the key for caches of answers. What has no head (most bases) answers with the mean of its last hidden states.

Two modes, chosen with --mode or by request (`/predict?mode=mixed`):

- *switch*: the model becomes the request's task, in place. Requests for one task share it, others wait their turn.
- *mixed*: requests are gathered for a few milliseconds into one batch, whose rows belong to different tasks.
  Scores equal those of the other mode within rounding.

GET /tasks lists what is there and what it takes; POST /tasks/NAME/prefetch, pin and evict say what is to be decoded.
It listens on this machine alone unless told otherwise, and knows no users: put it behind something that does.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from classifiers import Answer, Classifiers, Question, UnknownTaskError
from diffpack.errors import DiffpackError

Mode = Literal["switch", "mixed"]


class Gatherer:
    """Gathers questions that come within a few milliseconds, and has them answered as one batch, in a thread."""

    def __init__(self, classifiers: Classifiers, window: float, most: int) -> None:
        self._classifiers, self._window, self._most = classifiers, window, most
        self._asked: queue.Queue[tuple[Question, Future[Answer]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="gatherer", daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> Answer:
        """Wait for the answer. The head is read by who asks: what is wrong with a task is told to them alone."""
        self._classifiers.head(question.task or None)
        answer: Future[Answer] = Future()
        self._asked.put((question, answer))
        return answer.result()

    def _run(self) -> None:
        while (first := self._asked.get()) is not None:
            batch, until = [first], time.monotonic() + self._window
            while len(batch) < self._most:
                try:
                    asked = self._asked.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if asked is None:
                    self._asked.put(None)
                    break
                batch.append(asked)
            self._answer(batch)

    def _answer(self, batch: list[tuple[Question, Future[Answer]]]) -> None:
        try:
            said = self._classifiers.mixed([question for question, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:  # one of them is at fault: each by itself
                for alone in batch:
                    self._answer([alone])
            return
        for (_, answer), text in zip(batch, said, strict=True):
            answer.set_result(text)

    def close(self) -> None:
        """Answer what was asked, and end."""
        self._asked.put(None)
        self._thread.join()


def make_app(classifiers: Classifiers, gatherer: Gatherer, usual: Mode) -> FastAPI:
    """The service. Its functions are no coroutines, so each request has a thread: a lease belongs to one."""
    switcher = classifiers.switcher

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        gatherer.close()
        switcher.close()

    app = FastAPI(title="Tasks of one base", lifespan=lifespan)

    @app.exception_handler(DiffpackError)
    def failed(_: Any, error: DiffpackError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404 if isinstance(error, UnknownTaskError) else 500)

    @app.post("/predict")
    def predict(question: Question, mode: Mode = usual) -> Answer:
        return classifiers.switch(question) if mode == "switch" else gatherer.ask(question)

    @app.get("/tasks")
    def tasks() -> dict[str, Any]:
        usage = switcher.usage()
        listed = [
            {
                "name": name, "version": classifiers.versions.get(name), "bytes": path.stat().st_size,
                "decoded": name in usage.decoded, "pinned": name in usage.pinned, "error": classifiers.broken.get(name),
            }
            for name, path in classifiers.files.items()
        ]  # fmt: skip
        return {**asdict(usage), "tasks": listed}

    @app.post("/tasks/{name}/prefetch", status_code=202)
    def prefetch(name: str) -> dict[str, str]:
        classifiers.check(name)
        switcher.prefetch(name)
        return {"task": name, "state": "being decoded"}

    @app.post("/tasks/{name}/pin")
    def pin(name: str) -> dict[str, str]:
        classifiers.check(name)
        switcher.pin(name)
        return {"task": name, "state": "pinned"}

    @app.post("/tasks/{name}/evict")
    def evict(name: str) -> dict[str, str]:
        classifiers.check(name)
        return {"task": name, "state": "evicted" if switcher.evict(name) else "was not decoded"}

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "base": classifiers.base_version, "tasks": len(classifiers.versions), "mode": usual}

    return app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve many text classifiers of one base.")
    parser.add_argument("--base", type=Path, required=True, help="model folder with its tokenizer")
    parser.add_argument("--tasks", type=Path, required=True, help="folder of .dpk files, one a task")
    parser.add_argument("--mode", choices=["switch", "mixed"], default="switch")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--window", type=float, default=5, help="milliseconds that a mixed batch is gathered for")
    parser.add_argument("--most", type=int, default=32, help="rows of a mixed batch at most")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a text, where the task does not say")
    parser.add_argument("--decoded-mb", type=int, default=128, help="megabytes of decoded tasks that are kept")
    options = parser.parse_args()
    classifiers = Classifiers(options.base, options.tasks, options.decoded_mb * 1_000_000, options.max_length)
    for name, what in classifiers.broken.items():
        print(f"{name} cannot be used: {what}")
    app = make_app(classifiers, Gatherer(classifiers, options.window / 1000, options.most), options.mode)
    listening = socket.create_server((options.host, options.port))
    host, port = listening.getsockname()[:2]
    print(f"{len(classifiers.versions)} tasks of {options.base} at http://{host}:{port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
    print("stopped")


if __name__ == "__main__":
    main()

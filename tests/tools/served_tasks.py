"""Tasks to serve: made of a tiny BERT, with what each answers when it is loaded alone; and a server that is running."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import diffpack
from tests.tools.example_runs import SECONDS, start
from tests.tools.live_models import quiet, scatter

LABELS = {"two": ("no", "yes"), "four": ("north", "east", "south", "west")}


def make_task(base: Path, file: Path, labels: tuple[str, ...], seed: int) -> Path:
    """Store a fine-tune with a head of its own, weights of the whole body moved."""
    from transformers import AutoModelForSequenceClassification

    with quiet():
        torch.manual_seed(seed)
        tuned = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={}
        )
        scatter(tuned, seed, 0.2).save_pretrained(folder := file.with_suffix(""))
    diffpack.extract(base, folder, file, files="model")
    return file


class Alone:
    """What the result of a diff answers, without a server and without a switcher."""

    def __init__(self, base: Path, file: Path, labels: tuple[str, ...]) -> None:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        self.version = diffpack.open(file).manifest.result.fingerprint
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._labels = labels
        config = AutoConfig.from_pretrained(base, num_labels=len(labels))
        with quiet():
            self._model = AutoModelForSequenceClassification.from_config(config).eval()
        self._model.load_state_dict(diffpack.load(base, file, framework="torch"))

    def scores(self, text: str) -> dict[str, float]:
        with torch.inference_mode():
            logits = self._model(**self._tokenizer(text, return_tensors="pt")).logits
        return dict(zip(self._labels, logits.softmax(-1)[0].tolist(), strict=True))


def ask(address: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and content of an answer."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    with contextlib.closing(connection):
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@dataclass(frozen=True)
class Served:
    """A server that runs: its address, and its tasks, each also by itself."""

    address: str
    alone: dict[str, Alone]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return ask(self.address, method, path, body)


@contextlib.contextmanager
def running(base: Path, tasks: Path) -> Iterator[tuple[str, list[str]]]:
    """Start a server on a free port of this machine; give its address and what it said before. Stop it by Ctrl-C."""
    process = start("serve", "--base", base, "--tasks", tasks, "--port", 0, "--window", 20)
    try:
        assert process.stdout is not None
        said: list[str] = []
        while not said or " at http://" not in said[-1]:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said.append(line)
        yield said[-1].rsplit("/", 1)[1].strip(), said[:-1]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
    finally:
        process.kill()
        process.communicate()

"""Text classifiers of one base: its body in memory once, made one task or another by a TaskSwitcher, and their heads.

What a task has beside its changes of the body (a head, with labels of its own number and names) has no place in the
body; `TaskSwitcher.tensors` gives it. `serve.py` serves this.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import BaseModel, Field
from torch import nn

import diffpack
from diffpack.errors import DiffpackError, UsageError
from diffpack.live import TaskSwitcher

MOST_CHARACTERS = 20_000
"""Of a text; what is longer than a model can read is cut anyway."""


class Question(BaseModel):
    """A text (or a pair of texts) and the task that is to tell its label; without a task it is the base."""

    task: str | None = None
    text: str = Field(max_length=MOST_CHARACTERS)
    text_pair: str | None = Field(default=None, max_length=MOST_CHARACTERS)


class Answer(BaseModel):
    """What a task says, and exactly which weights said it. Without a head there is an embedding in place of a label."""

    task: str | None
    version: str
    label: str | None = None
    scores: dict[str, float] | None = None
    embedding: list[float] | None = None


class UnknownTaskError(UsageError):
    """A task that is not there."""


_computed: ContextVar[Any] = ContextVar("computed")


class Computed(nn.Module):
    """Stands where a classifier has its body: hands on what the one body in memory computed for its rows."""

    def forward(self, *_: Any, **__: Any) -> Any:
        """Give what `Head.answer` set."""
        return _computed.get()


@dataclass(frozen=True)
class Head:
    """What a task has beside its changes of the body: a classifier without body, its labels, how long its texts are."""

    classifier: nn.Module | None
    labels: tuple[str, ...]
    max_length: int

    @classmethod
    def of(cls, classifier: Any, max_length: int) -> Head:
        """The head that is a classifier of transformers."""
        names = classifier.config.id2label
        return cls(classifier.eval(), tuple(names[at] for at in range(len(names))), max_length)

    @torch.inference_mode()
    def answer(self, task: str | None, version: str, hidden: Any, batch: dict[str, torch.Tensor]) -> list[Answer]:
        """One answer a row, of what the body made of a batch."""
        if self.classifier is None:
            mask = batch["attention_mask"].unsqueeze(-1)
            means = (hidden.last_hidden_state * mask).sum(1) / mask.sum(1)
            return [Answer(task=task, version=version, embedding=row) for row in means.tolist()]
        _computed.set(hidden)
        shares = self.classifier(**batch).logits.float().softmax(-1).tolist()
        scores = [dict(zip(self.labels, row, strict=True)) for row in shares]
        return [Answer(task=task, version=version, label=max(row, key=row.__getitem__), scores=row) for row in scores]


class Classifiers:
    """One body, which a TaskSwitcher makes whatever task is asked for, and the heads, which are read when needed."""

    def __init__(self, base: Path, tasks: Path, decoded_bytes: int, max_length: int) -> None:
        transformers.logging.set_verbosity_error()  # a base without a head is what we expect
        transformers.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
        model, found = transformers.AutoModelForSequenceClassification.from_pretrained(
            base, local_files_only=True, dtype="auto", output_loading_info=True
        )
        self.body: nn.Module = model.base_model.eval()
        self.body.config.use_cache = False
        self.switcher = TaskSwitcher(self.body, base, decoded_bytes=decoded_bytes)
        self.base_version = str(self.switcher.version)
        self._base, self._config = base, json.loads((base / "config.json").read_text())
        self._max_length = min(max_length, self._config.get("max_position_embeddings", max_length + 2) - 2)
        setattr(model, model.base_model_prefix, Computed())
        of_base = Head(None, (), self._max_length) if found["missing_keys"] else Head.of(model, self._max_length)
        self._heads: dict[str | None, Head] = {None: of_base}
        self.files = {path.stem: path for path in sorted(tasks.glob("*.dpk"))}
        self.versions: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        for name, path in self.files.items():
            try:
                self.versions[name] = str(self.switcher.add(name, path))
            except DiffpackError as error:  # the others are served
                self.broken[name] = str(error)

    def check(self, name: str) -> None:
        """Raise `UnknownTaskError` for a task that is not there, `DiffpackError` for one that could not be added."""
        if name in self.broken:
            raise DiffpackError(self.broken[name])
        if name not in self.versions:
            raise UnknownTaskError(f"no task {name!r}; GET /tasks lists the {len(self.files)} there are")

    def head(self, name: str | None) -> Head:
        """A task's head, or the base's."""
        if name is not None and name not in self._heads:
            self.check(name)
            self._heads[name] = self._read(name)
        return self._heads[name]

    def _read(self, name: str) -> Head:
        with diffpack.open(self.files[name]) as diff:  # config.json as the fine-tune had it, if it is not the base's
            own = any(file.name == "config.json" and file.stored for file in diff.manifest.files)
            config = json.loads(diff.blob("config.json")) if own else self._config
            longest = json.loads(diff.metadata.get("train", "{}")).get("max_length", self._max_length)
        tensors = self.switcher.tensors(name)
        if not tensors and self._heads[None].classifier is None:
            return Head(None, (), longest)
        with torch.device("meta"):  # without memory, but for the head's own tensors
            made = transformers.AutoConfig.for_model(**config)
            classifier: Any = transformers.AutoModelForSequenceClassification.from_config(made)
        setattr(classifier, classifier.base_model_prefix, Computed())
        if lacking := classifier.state_dict().keys() - tensors.keys():  # those that are the base's, unchanged
            whole = diffpack.load(self._base, self.files[name], framework="torch")
            tensors |= {tensor: whole[tensor] for tensor in lacking & whole.keys()}
        try:
            classifier.load_state_dict(tensors, strict=True, assign=True)
        except RuntimeError as error:
            raise UsageError(f"{self.files[name]}: its tensors make no classifier: {error}") from None
        return Head.of(classifier, longest)

    def _encode(self, questions: list[Question], heads: list[Head]) -> dict[str, torch.Tensor]:
        rows = [
            self.tokenizer(question.text, question.text_pair, truncation=True, max_length=head.max_length)
            for question, head in zip(questions, heads, strict=True)
        ]
        return dict(self.tokenizer.pad(rows, return_tensors="pt"))

    def switch(self, question: Question) -> Answer:
        """Make the model the question's task, and ask it."""
        name = question.task or None
        head = self.head(name)
        batch = self._encode([question], [head])
        with self.switcher.task(name) as version, torch.inference_mode():
            hidden = self.body(**batch)
        return head.answer(name, str(version), hidden, batch)[0]

    def mixed(self, questions: list[Question]) -> list[Answer]:
        """Ask each question's own task, all in one batch."""
        names = [question.task or None for question in questions]
        heads = [self.head(name) for name in names]
        batch = self._encode(questions, heads)
        with self.switcher.mixed(names) as versions, torch.inference_mode():
            hidden = self.body(**batch)
        answers: dict[int, Answer] = {}
        for name in set(names):  # its rows go through its head
            rows = [at for at, other in enumerate(names) if other == name]
            theirs = type(hidden)(**{key: value[rows] for key, value in hidden.items() if torch.is_tensor(value)})
            own = {key: value[rows] for key, value in batch.items()}
            said = heads[rows[0]].answer(name, str(versions[rows[0]]), theirs, own)
            answers.update(zip(rows, said, strict=True))
        return [answers[at] for at in range(len(names))]

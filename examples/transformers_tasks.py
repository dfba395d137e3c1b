"""Tasks in a model of transformers: its body switched in place, or each task a model of its own on the base's memory.

::

    pip install 'diffpack[train]'
    python examples/transformers_tasks.py                            # a tiny random BERT and three tasks of it
    python examples/transformers_tasks.py --keep tiny                # the same, left in tiny/base and tiny/tasks
    python examples/transformers_tasks.py --base base a.dpk b.dpk    # yours

    the base: 2.158, 1.055, -0.335, -0.614
    mood: 1.850, 1.077, -0.871, 1.313 (5,021 bytes, version f4c6f235...)
        with classifier.bias [2], classifier.weight [2, 64]
    topic: 0.169, 0.942, -0.153, -0.689 (5,217 bytes, version 8cdfd529...)
        with classifier.bias [4], classifier.weight [4, 64]
    spam: 1.982, 0.812, -0.407, -1.080 (4,860 bytes, version 0024abb5...)
        with classifier.bias [2], classifier.weight [2, 64]
    the base again: 2.158, 1.055, -0.335, -0.614
    mood, a BertForSequenceClassification: glad 0.78, sad 0.22
    topic, a BertForSequenceClassification: art 0.05, sport 0.48, money 0.35, law 0.11
    spam, a BertForSequenceClassification: no 0.63, yes 0.37
    3 models take 711,200 bytes; apart they would take 1,327,648

Nothing is fetched. What is made here is not trained: its weights are random, and so are its answers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import diffpack
from diffpack.live import TaskSwitcher, from_pretrained

TEXT = "the a film day plot song was is not very good bad fine dull long short new old and but"
LABELS = {"mood": ["glad", "sad"], "topic": ["art", "sport", "money", "law"], "spam": ["no", "yes"]}
DENSITY = 0.01
"""Of the weights of the last layer, which is what changes here."""


def make_base(folder: Path) -> Path:
    """Save a tiny BERT of random weights, without a head, and its tokenizer."""
    words = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TEXT.split()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",  # noqa: S106 - tokens of text
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def make_task(base: Path, folder: Path, name: str, seed: int) -> Path:
    """Make what looks like a fine-tune: a new head, some weights of the last layer moved. Store the difference."""
    labels = LABELS[name]
    torch.manual_seed(seed)
    tuned = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, local_files_only=True, num_labels=len(labels), id2label=dict(enumerate(labels)),
        label2id={label: at for at, label in enumerate(labels)},
    )  # fmt: skip
    with torch.no_grad():
        for value in tuned.base_model.encoder.layer[-1].parameters():
            value += (torch.rand(value.shape) < DENSITY) * torch.randn(value.shape)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as saved:
        tuned.save_pretrained(saved)
        diffpack.extract(base, saved, folder / f"{name}.dpk", files="model", force=True)
    return folder / f"{name}.dpk"


def numbers(hidden: torch.Tensor) -> str:
    """The first of some hidden states."""
    return ", ".join(f"{value:.3f}" for value in hidden[0, 0, :4].tolist())


def switch(base: Path, tasks: list[Path], batch: dict[str, torch.Tensor]) -> None:
    """One body in memory, one task after another in it. Heads have no place there: `tensors` gives them."""
    body: Any = transformers.AutoModel.from_pretrained(base, local_files_only=True, dtype="auto").eval()
    with TaskSwitcher(body, base) as switcher, torch.no_grad():
        print(f"the base: {numbers(body(**batch).last_hidden_state)}")
        for path in tasks:
            switcher.add(path.stem, path)
            with switcher.task(path.stem) as version:
                hidden = body(**batch).last_hidden_state
            own = ", ".join(f"{name} {list(value.shape)}" for name, value in switcher.tensors(path.stem).items())
            print(f"{path.stem}: {numbers(hidden)} ({path.stat().st_size:,} bytes, version {str(version)[:8]}...)")
            print(f"    with {own}")
        print(f"the base again: {numbers(body(**batch).last_hidden_state)}")


def load_each(base: Path, tasks: list[Path], batch: dict[str, torch.Tensor]) -> None:
    """Each task as a whole model, with its head and its labels; what it does not change is the base's memory."""
    loaded: dict[str, Any] = {path.stem: from_pretrained(base, path) for path in tasks}
    memory: dict[int, int] = {}
    for model in loaded.values():
        memory.update((value.data_ptr(), value.nbytes) for value in model.parameters())
    for name, model in loaded.items():
        with torch.no_grad():
            shares = model(**batch).logits.softmax(-1)[0].tolist()
        told = ", ".join(f"{model.config.id2label[at]} {share:.2f}" for at, share in enumerate(shares))
        print(f"{name}, a {type(model).__name__}: {told}")
    alone = sum(value.nbytes for model in loaded.values() for value in model.parameters())
    print(f"{len(loaded)} models take {sum(memory.values()):,} bytes; apart they would take {alone:,}")


def main() -> None:
    """Make base and tasks, or take them; switch between them; load each."""
    parser = argparse.ArgumentParser(description="Tasks in a model of transformers.")
    parser.add_argument("--base", type=Path, help="a model folder with its tokenizer")
    parser.add_argument("--keep", type=Path, help="where to leave what is made here")
    parser.add_argument("tasks", type=Path, nargs="*", help="diffs of that base")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()  # a base without a head is what we expect
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        base = options.base or make_base(folder / "base")
        tasks = options.tasks or [make_task(base, folder / "tasks", name, seed) for seed, name in enumerate(LABELS, 1)]
        tokenizer = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
        batch = dict(tokenizer(["a film was very good", "the plot"], padding=True, return_tensors="pt"))
        switch(base, tasks, batch)
        load_each(base, tasks, batch)


if __name__ == "__main__":
    main()
